namespace Cmcl

open System
open TorchSharp

/// A study of one stream that a script makes step by step, and how it is to be run: a value that the functions of `Run` change and `Run.go` runs.
[<StructuredFormatDisplay("{Text}")>]
type StudyBuilder =
    internal
        {
            Stream: Stream
            Configs: Config<AnyOptions> list
            /// Options for every method that takes them.
            Given: (string * string) list
            Seeds: int list
            /// 0 is the stream's own order of steps.
            Orders: int list
            Split: Split
            Device: torch.Device
            /// Jobs side by side; None for as many as there are cores for their threads.
            Jobs: int option
            /// Threads of libtorch in a job; None for 1 up to 512 columns, else one a core.
            Threads: int option
            Folder: string option
            Command: string
            /// Makes a listener when the study of these cells, each with its updates, begins.
            Tell: (Cell * int64) list -> StudyEvent -> unit
            /// Asked after every update by every thread that trains: whether to stop with what has finished.
            Stop: unit -> bool
        }

    member s.Text: string =
        let methods = String.Join(", ", s.Configs |> List.map _.Label)
        let seeds = String.Join(", ", s.Seeds)
        let orders = if s.Orders.Length = 1 then "" else $", {s.Orders.Length} orders of its steps"
        $"a study of {methods} on {s.Stream.Name}{orders}, seeds {seeds}, {s.Split} rows; Run.go runs it"

    override s.ToString() = s.Text
