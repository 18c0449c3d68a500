namespace Cmcl

open System
open TorchSharp

/// What a study tells while it runs.
[<RequireQualifiedAccess>]
type StudyEvent =
    | Began of cells: int * jobs: int
    /// A method with a seed in an order is over: whether it was finished before and only read, and why it ended early if it did.
    | Ended of label: string * order: int * seed: int * before: bool * fault: Fault option
    /// A checkpoint of a method with a seed in an order could not be written or read; it goes on.
    | Unkept of label: string * order: int * seed: int * fault: Fault
    /// What was found cannot be written to the study's folder, so that nothing more is begun; what is over is in the result.
    | Unwritten of fault: Fault
    /// It was left (`Run.until`) with so many of its cells not over. The last event, if it comes.
    | Left of cells: int

/// Configurations × seeds × orders over a stream, and how they are to be run: a value that `Run` makes step by step and `Run.go` runs.
[<StructuredFormatDisplay("{Text}")>]
type Study =
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
            /// Cells side by side; None for as many as there are cores for their threads.
            Jobs: int option
            /// Threads of libtorch in a cell; None for 1 up to 512 columns, else one a core.
            Threads: int option
            Folder: string option
            Command: string
            /// Makes a listener when the study begins.
            Tell: unit -> StudyEvent -> unit
            /// Asked again and again, by every thread that trains: whether to leave what is not over.
            Leave: unit -> bool
        }

    member s.Text: string =
        let methods = String.Join(", ", s.Configs |> List.map _.Label)
        let seeds = String.Join(", ", s.Seeds)
        let orders = if s.Orders.Length = 1 then "" else $", {s.Orders.Length} orders of its steps"
        $"a study of {methods} on {s.Stream.Name}{orders}, seeds {seeds}, {s.Split} rows; Run.go runs it"

    override s.ToString() = s.Text
