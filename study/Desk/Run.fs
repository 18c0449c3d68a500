namespace Cmcl

open System
open TorchSharp

/// Studies, as pipes:
/// `Stream.load "emoji" |> Run.on |> Run.method Baseline.vanilla |> Run.method Dns.defaults |> Run.seeds [ 0..2 ] |> Run.go`.
[<RequireQualifiedAccess>]
module Run =
    /// A study on a stream, with nothing to run yet: seed 0, test rows, the CPU.
    let on (stream: Stream) : StudyBuilder =
        { Stream = stream
          Configs = []
          Given = []
          Seeds = [ 0 ]
          Orders = [ 0 ]
          Split = Split.Test
          Device = torch.CPU
          Jobs = None
          Threads = None
          Folder = None
          Command = "Run.go (F#)"
          Tell = StudyConsole.listener
          Stop = fun () -> false }

    /// Adds a method.
    let method (config: Config<'takes>) (study: StudyBuilder) : StudyBuilder =
        { study with
            Configs = study.Configs @ [ Config.any config ] }

    /// Adds methods of one kind, such as a product that `Config.over` made.
    let methods (configs: Config<'takes> list) (study: StudyBuilder) : StudyBuilder =
        { study with
            Configs = study.Configs @ List.map Config.any configs }

    /// Adds methods as the command line writes them: `vanilla,dns[exact=on]`.
    let named (text: string) (study: StudyBuilder) : StudyBuilder = methods (Plan.split text |> List.map Config.named) study

    /// Sets options of every method that takes them, over the stream's preset and below what a method sets itself; each has to matter to one
    /// method at least. As in `Run.each (Learn.epochs 2 >> Learn.dtype Dtype.Float64)`.
    let each (set: Config<AnyOptions> -> Config<AnyOptions>) (study: StudyBuilder) : StudyBuilder =
        let given = (set (Config.ofName "")).Options
        let kept = study.Given |> List.filter (fun (name, _) -> not (List.exists (fst >> (=) name) given))
        { study with Given = kept @ given }

    let private distinctly (what: string) (least: int) (values: int list) : int list =
        if values.IsEmpty || List.exists (fun x -> x < least) values || (List.distinct values).Length <> values.Length then
            let given = String.Join(", ", values)

            Check.fail (
                Fault.BadValue(what, $"different whole numbers ≥ {least}, one or more", (if given = "" then "none" else given))
            )

        values

    /// The seeds; every method runs with each. Fault: `BadValue` for none or one twice.
    let seeds (values: int list) (study: StudyBuilder) : StudyBuilder =
        { study with
            Seeds = distinctly "seeds of a study" 0 values }

    /// Orders of the steps by number (`Order.permutation`), among them 0, the stream's own, which results are of where no other is named. Faults:
    /// `BadValue` for orders without 0, one twice, or one that the stream's steps do not have.
    let orders (values: int list) (study: StudyBuilder) : StudyBuilder =
        for order in distinctly "orders of the steps" 0 values do
            Order.permutation study.Stream.Steps.Length order |> ignore

        if not (List.contains 0 values) then
            let given = String.Join(", ", values)
            Check.fail (Fault.BadValue("orders of the steps", "0, the stream's own, with others beside it", given))

        { study with Orders = values }

    /// Takes figures of validation rows: what settings are to be chosen on.
    let onValidation (study: StudyBuilder) : StudyBuilder = { study with Split = Split.Validation }

    /// Trains and measures on a device, such as `torch.CUDA`.
    let device (device: torch.Device) (study: StudyBuilder) : StudyBuilder = { study with Device = device }

    let private atLeastOne (what: string) (count: int) : int option =
        if count < 1 then
            Check.fail (Fault.BadValue(what, "a whole number ≥ 1", string count))

        Some count

    /// How many cells run side by side. What a cell gives does not depend on it.
    let jobs (count: int) (study: StudyBuilder) : StudyBuilder = { study with Jobs = atLeastOne "jobs of a study" count }

    /// Threads of libtorch in each cell. Figures depend on it as far as sums of floats depend on their order.
    let threads (count: int) (study: StudyBuilder) : StudyBuilder =
        { study with
            Threads = atLeastOne "threads of a study" count }

    /// Keeps what is finished, and what is half done every half minute, below a folder, as `cmcl run` and `cmcl compare` do: the same study, or a
    /// larger one, goes on from there, and from what those have finished. Methods that are not the registry's are run again, since their code may
    /// be another one; so is everything after a change of this library's sources, unless `cmcl store adopt` takes it over.
    let into (folder: string) (study: StudyBuilder) : StudyBuilder = { study with Folder = Some folder }

    /// What results say that they were made by.
    let command (text: string) (study: StudyBuilder) : StudyBuilder = { study with Command = text }

    /// Calls a function with what happens, one call at a time, in place of writing progress to standard error.
    let tell (listener: StudyEvent -> unit) (study: StudyBuilder) : StudyBuilder = { study with Tell = fun _ -> listener }

    /// Says nothing while it runs.
    let quietly (study: StudyBuilder) : StudyBuilder = tell ignore study

    /// Leaves the study as it stands once the function says so, which is asked after every update by each thread that trains. The result is of the
    /// cells that are over; with a folder (`into`) the others are kept, too, and the same study goes on from there.
    let until (stop: unit -> bool) (study: StudyBuilder) : StudyBuilder = { study with Stop = stop }

    /// The plans that a study runs, with every setting, or why it cannot.
    let plans (study: StudyBuilder) : Result<Plan list, Fault list> = StudyCells.plans study

    /// Runs the study. A cell that diverges, or breaks off by an exception of whatever kind, is recorded among the failures, and the others go on.
    /// Where what is over cannot be written to the study's folder, nothing more is begun: the result has what is over, and its failures say what was
    /// not run. Raises a `CmclException` that tells every
    /// fault: no method, an option that a method does not take or that changes nothing, a batch that a step cannot fill, a folder that
    /// cannot be written to at the beginning, or one that another process writes to.
    let go (study: StudyBuilder) : StudyResult = StudyCells.go study |> Check.getAll

    /// The configuration that a study would choose: of all its methods with all their settings the one with the best recall@10 on validation rows, mean
    /// over its seeds; the first of equals. Of a method that starts again at every step what it learned counts. Runs the study on validation
    /// rows whatever rows it says, in the stream's own order of steps. Faults: those of `go`, or `Contradiction` if none has figures for every seed.
    /// As in `Run.on stream |> Run.methods ([ Dns.soft ] |> Config.over Dns.tau [ 1e-6; 1e-5 ]) |> Run.winner`.
    let winner (study: StudyBuilder) : Config<AnyOptions> =
        let found = { study with Split = Split.Validation; Orders = [ 0 ] } |> go
        let measured = StudyResult.measured found
        let metric name = Metric.find name |> Check.get

        let recall (label: string) =
            let name = if Roles.startsAgain found.Info.Roles label then "learned_r10" else "r10"

            Measured.spread found.Stream label (metric name) measured
            |> Option.filter (fun s -> s.Count = study.Seeds.Length)
            |> Option.map _.Mean

        match study.Configs |> List.choose (fun c -> recall c.Label |> Option.map (fun r -> c, r)) with
        | [] ->
            let why =
                found.Info.Failures |> List.map (fun (_, _, why) -> $": {why.TrimEnd '.'}") |> List.truncate 1 |> String.concat ""

            Check.fail (Fault.Contradiction($"no method of the study has figures for every seed{why}", "try other settings"))
        | candidates -> candidates |> List.maxBy snd |> fst

    /// The study of its `winner` alone, on test rows: what is chosen on validation rows is reported from rows that had no part in the choice.
    /// As in `study |> Run.best |> Run.go`. Faults as of `winner`.
    let best (study: StudyBuilder) : StudyBuilder =
        let chosen = winner study
        let plan = StudyCells.plans study |> Check.getAll |> List.find (fun p -> p.Label = chosen.Label)

        { study with
            Configs = [ chosen ]
            // What was set for all, as far as this method takes it and does not set its own.
            Given =
                study.Given
                |> List.filter (fun (name, _) ->
                    Plan.takes plan name && Plan.matters plan name && not (List.exists (fst >> (=) name) chosen.Options))
            Split = Split.Test }

    /// Trains a study of one method with one seed in one order, and gives the heads after its last step, which belong to the caller, with what is
    /// known of where they come from; no folder is written to. Raises a `CmclException` as `go` does, and for a study of several cells, a method
    /// that does not train, or one that diverges.
    /// As in `Stream.load "emoji" |> Run.on |> Run.method Dns.defaults |> Run.heads |> SavedHeads.write "heads.safetensors" |> Check.get`.
    let heads (study: StudyBuilder) : SavedHeads = StudyCells.heads study |> Check.getAll
