namespace Cmcl

open System
open System.IO
open System.Text

/// The files of a results folder, and whose it is.
[<RequireQualifiedAccess>]
module ResultsFolder =
    let private within (folder: string) (name: string) : string = Path.Combine(folder, name)

    let weights (folder: string) : string = within folder "weights"

    /// Makes sure that results can go to a folder that is there: it can be written to, holds none of these files and folders unless they may be
    /// replaced, and has no folder in a file's place. Nothing of the user's own in it is touched (`Ours.clear`). Faults: `Occupied`, `Unwritable`.
    let claim (files: string list, folders: string list) (force: bool) (folder: string) : Result<unit, Fault list> =
        let within = within folder
        let taken = files |> List.exists (within >> File.Exists) || folders |> List.exists (within >> Directory.Exists)

        match files |> List.map within |> List.tryFind Directory.Exists with
        | Some path -> Error [ Fault.Unwritable(path, "it is a folder, and results need a file of that name") ]
        | None when taken && not force -> Error [ Fault.Occupied folder ]
        | None ->
            Files.writing folder (fun () ->
                Directory.CreateDirectory folder |> ignore
                let probe = within $".{Guid.NewGuid():N}"
                File.WriteAllText(probe, "")
                File.Delete probe)
            |> Result.bind (fun () -> Ours.clear (files, folders) folder)

    /// `claim` for what a run writes.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> =
        claim
            ([ "results.csv"; "losses.csv"; "spectra.csv"; "monitor.csv"; "config.json"; "report.html" ],
             [ "weights"; "checkpoints" ])
            force
            folder

    /// Makes the folder for weights. Fault: `Unwritable`.
    let makeWeights (folder: string) : Result<unit, Fault list> =
        let path = weights folder

        if File.Exists path then
            Error [ Fault.Unwritable(path, "it is a file, and --save-weights needs a folder of that name") ]
        else
            Files.writing path (fun () -> Directory.CreateDirectory path |> ignore)

    /// The folder that `--save-weights` fills for a method and a seed; in it `step-01` and so on.
    let weightsOf (results: string) (label: string) (seed: int) : string =
        Path.Combine(Names.within (weights results) label, $"seed-{seed}")

    let private stepFolder (results: string) (label: string) (seed: int) (step: Step) : string =
        Path.Combine(weightsOf results label seed, $"step-{step.Index:D2}")

    /// Are the heads of all modalities of a stream after a step there?
    let hasWeights (results: string) (label: string) (seed: int) (stream: Cmcl.Stream) (step: Step) : bool =
        let folder = stepFolder results label seed step
        Stream.modalities stream |> List.forall (fun (m, _) -> File.Exists(Path.Combine(folder, m.Name + ".npy")))

    /// Where weights of a method and a seed are: `weightsOf`, or in results of an older version as that named it.
    let weightsFound (results: string) (label: string) (seed: int) : string =
        let own = weightsOf results label seed

        let older =
            let name = label |> String.map (fun c -> if Char.IsAsciiLetterOrDigit c || c = '-' || c = '.' then c else '_')
            Path.Combine(weights results, name, $"seed-{seed}")

        if label.Trim '.' <> "" && not (Directory.Exists own) && Directory.Exists older then older else own

    /// Writes the heads after a step below `weightsOf`, with the method's label beside it. Raises a `CmclException` where they cannot be written.
    let saveWeights (results: string) (label: string) (seed: int) (step: Step) (heads: Heads) : unit =
        let folder = stepFolder results label seed step
        Files.makeFolderOf (Path.Combine(folder, "head")) |> Check.get
        let method = Names.within (weights results) label

        if Path.GetFileName method <> label then
            let text = Encoding.UTF8.GetBytes label
            Files.writeWhole (Path.Combine(method, "label.txt")) (fun file -> file.Write(text, 0, text.Length)) |> Check.get

        for KeyValue(m, w) in heads do
            use cpu = w.cpu ()
            Npy.write (Path.Combine(folder, m.Name + ".npy")) cpu |> Check.get
