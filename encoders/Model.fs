namespace Cmcl.Encoders

open System
open System.IO
open System.IO.Compression
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open Microsoft.ML.OnnxRuntime
open Microsoft.ML.OnnxRuntime.Tensors
open TorchSharp
open Cmcl

/// What goes into an encoder at once, a row an item: images, spectrograms, samples (float32) or token numbers (int64), and for texts
/// which of them are tokens.
type EncoderInput = { Main: torch.Tensor; Mask: torch.Tensor option }

/// A loaded model: features (n × d, float32 on the CPU) of n items. Raises `CmclException` for what does not fit the model.
type Encoder =
    { Run: EncoderInput -> torch.Tensor
      Free: unit -> unit }

    interface IDisposable with
        member e.Dispose() = e.Free()

[<RequireQualifiedAccess>]
module Encoder =
    let private firstLine (e: exn) : string =
        let line = e.Message.Trim().Split('\n')[0]
        line.TrimEnd('.', '\r')

    let private fail (file: string) reason : 'a = Check.fail (Fault.Unreadable(file, reason))

    /// An output as n × d: sides of 1 behind the first are dropped.
    let private rows (what: string) (n: int64) (output: torch.Tensor) : torch.Tensor =
        let sides = output.shape |> List.ofArray

        match sides with
        | first :: rest when first = n ->
            match rest |> List.filter ((<>) 1L) with
            | [] -> output.reshape (n, 1L)
            | [ d ] -> output.reshape (n, d)
            | _ -> Check.fail (Fault.Shape(what, $"one vector for each of {n} items", Tensors.shapeText output))
        | _ -> Check.fail (Fault.Shape(what, $"one vector for each of {n} items", Tensors.shapeText output))

    // ---- ONNX ----------------------------------------------------------------------------------------------------

    let private sidesText (sides: seq<int>) : string =
        "[" + String.Join(" × ", sides |> Seq.map (fun side -> if side < 0 then "any" else string side)) + "]"

    let private known (kind: string) (name: string) (file: string) (all: seq<string>) : string =
        if Seq.contains name all then
            name
        else
            Check.fail (Fault.Unknown($"{kind} of '{file}'", name, List.ofSeq all))

    /// The name in the description, or the only one that is left.
    let private chosen (kind: string) (file: string) (given: string option) (left: string list) (all: seq<string>) : string =
        match given, left with
        | Some name, _ -> known kind name file all
        | None, [ only ] -> only
        | None, _ ->
            let names = String.Join(", ", left)

            Check.fail (
                Fault.Contradiction(
                    $"'{file}' has more than one {kind} ({names})",
                    $"name one of them as '{kind}' in the description"
                )
            )

    /// Numbers of a tensor as the model wants them.
    let private value (file: string) (name: string) (meta: NodeMetadata) (t: torch.Tensor) : OrtValue =
        let t = t.contiguous ()

        match meta.ElementDataType with
        | TensorElementType.Float when torch.is_floating_point t ->
            OrtValue.CreateTensorValueFromMemory(t.``to``(torch.float32).data<float32>().ToArray(), t.shape)
        | TensorElementType.Int64 when t.dtype = torch.int64 ->
            OrtValue.CreateTensorValueFromMemory(t.data<int64>().ToArray(), t.shape)
        | TensorElementType.Int32 when t.dtype = torch.int64 ->
            OrtValue.CreateTensorValueFromMemory(t.``to``(torch.int32).data<int32>().ToArray(), t.shape)
        | other -> fail file $"its input '{name}' is of type {other}; {t.dtype} is what the description gives it"

    let private fits (file: string) (name: string) (meta: NodeMetadata) (t: torch.Tensor) : unit =
        let sides = meta.Dimensions

        let agrees =
            sides.Length = t.shape.Length
            && Seq.forall2 (fun side size -> side < 0 || int64 side = size) (Seq.skip 1 sides) (Seq.skip 1 t.shape)

        if not agrees then
            Check.fail (
                Fault.Shape(
                    $"input '{name}' of '{file}'",
                    $"{sidesText sides}, as the model says",
                    $"{Tensors.shapeText t} by the description"
                )
            )

    let private result (file: string) (name: string) (value: OrtValue) : torch.Tensor =
        let info = value.GetTensorTypeAndShape()

        let flat =
            match info.ElementDataType with
            | TensorElementType.Float -> torch.tensor (value.GetTensorDataAsSpan<float32>().ToArray())
            | TensorElementType.Double -> torch.tensor(value.GetTensorDataAsSpan<float>().ToArray()).``to`` torch.float32
            | TensorElementType.Float16 ->
                let halves = MemoryMarshal.Cast<Float16, Half>(value.GetTensorDataAsSpan<Float16>()).ToArray()
                torch.tensor (Array.map float32 halves)
            | other -> fail file $"its output '{name}' is of type {other}; float, double and float16 can be taken"

        flat.reshape info.Shape

    /// One piece of a batch through the session.
    let private runOnnx (file: string) (session: InferenceSession) (output: string) (inputs: (string * torch.Tensor) list) =
        let values = [ for name, t in inputs -> name, value file name session.InputMetadata[name] t ]

        try
            let names, given = List.unzip values
            use options = new RunOptions()
            use outputs = session.Run(options, names, given, [ output ])
            result file output (Seq.head outputs)
        finally
            for _, value in values do
                value.Dispose()

    let private onnx (d: Description) (threads: int) : Encoder =
        use options = new SessionOptions(IntraOpNumThreads = threads, LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
        let session = new InferenceSession(d.File, options)
        let inputs, outputs = session.InputMetadata.Keys, session.OutputMetadata.Keys

        let mask, types =
            match d.Input with
            | Input.Text t -> t.Mask, t.Types
            | _ -> None, None

        let besides = List.choose id [ mask; types ]

        for name in besides do
            known "input" name d.File inputs |> ignore

        let left = inputs |> Seq.filter (fun name -> not (List.contains name besides)) |> List.ofSeq
        let main = chosen "input" d.File d.InputName left inputs

        match left |> List.filter ((<>) main) with
        | [] -> ()
        | extra ->
            let names = String.Join(", ", extra)
            fail d.File $"the model also takes {names}, for which the description gives nothing"

        let output = chosen "output" d.File d.OutputName (List.ofSeq outputs) outputs
        // A model may have been exported for so many items at once and no others.
        let together =
            session.InputMetadata[main].Dimensions |> Array.tryHead |> Option.filter (fun n -> n > 0) |> Option.map int64

        let run (given: EncoderInput) =
            Tensors.scoped (fun () ->
                let named =
                    [ main, given.Main
                      match mask, given.Mask with
                      | Some name, Some m -> name, m
                      | _ -> ()
                      match types with
                      | Some name -> name, given.Main.zeros_like ()
                      | None -> () ]

                for name, t in named do
                    fits d.File name session.InputMetadata[name] t

                let n = given.Main.shape[0]
                let size = Option.defaultValue n together

                let piece (first: int64) =
                    let count = min size (n - first)

                    let filled (t: torch.Tensor) =
                        let own = t.narrow (0L, first, count)
                        // The last row again and again, where the model takes more than are left.
                        if count = size then
                            own
                        else
                            torch.cat ([| own; own.narrow(0L, count - 1L, 1L).repeat_interleave(size - count, 0L) |], 0L)

                    (runOnnx d.File session output [ for name, t in named -> name, filled t ]
                     |> rows $"output '{output}' of '{d.File}'" size)
                        .narrow(0L, 0L, count)

                torch.cat ([| for first in 0L .. size .. n - 1L -> piece first |], 0L))

        { Run =
            fun given ->
                try
                    run given
                with :? OnnxRuntimeException as e ->
                    fail d.File $"the model failed: {firstLine e}"
          Free = fun () -> session.Dispose() }

    // ---- TorchScript ---------------------------------------------------------------------------------------------

    /// Whether a file is an archive with a program in it, as TorchScript's are, and not one with pickled weights only.
    let private requireScript (file: string) : unit =
        let names =
            try
                use archive = ZipFile.OpenRead file
                [ for entry in archive.Entries -> entry.FullName ]
            with :? InvalidDataException ->
                fail
                    file
                    "it is not a TorchScript archive; a file of pickled Python objects (torch.save) is not read, because it can run code: save the model with torch.jit.save, or as ONNX"

        let within (part: string) = names |> List.exists (fun name -> name.Contains("/" + part))

        if not (within "code/" && within "constants.pkl") then
            fail
                file
                "it is an archive of pickled Python objects (torch.save) without a program, and is not read, because it can run code: save the model with torch.jit.save, or as ONNX"

    let private ofTuple (d: Description) (value: obj) : torch.Tensor =
        let place = d.OutputName |> Option.defaultValue "0"

        let pick (all: obj list) =
            match Int32.TryParse place with
            | true, i when i >= 0 && i < all.Length ->
                match all[i] with
                | :? torch.Tensor as t -> t
                | _ -> fail d.File $"value {i} of what it returns is no tensor"
            | _ -> Check.fail (Fault.Unknown($"output of '{d.File}'", place, [ for i in 0 .. all.Length - 1 -> string i ]))

        match value with
        | :? torch.Tensor as t -> t
        | :? ITuple as t -> pick [ for i in 0 .. t.Length - 1 -> Unchecked.nonNull (box t[i]) ]
        | :? Collections.IEnumerable as all -> pick [ for t in all -> t ]
        | other -> fail d.File $"it returns {other.GetType().Name}; a tensor, or a tuple or list of tensors, is needed"

    let private torchScript (d: Description) (device: torch.Device) : Encoder =
        requireScript d.File
        let script = torch.jit.load (d.File, device)
        script.eval ()

        let run (given: EncoderInput) =
            Tensors.scoped (fun () ->
                use _ = torch.no_grad ()

                let typed (t: torch.Tensor) =
                    match d.Input with
                    | Input.Text x when x.Narrow -> t.``to`` torch.int32
                    | _ -> t

                let inputs =
                    [| given.Main
                       match d.Input, given.Mask with
                       | Input.Text x, Some m when x.Mask.IsSome -> m
                       | _ -> () |]
                    |> Array.map (fun t -> box ((typed t).``to`` device))

                (script.call inputs |> ofTuple d).``to``(torch.float32).cpu()
                |> rows $"the output of '{d.File}'" given.Main.shape[0])

        { Run =
            fun given ->
                try
                    run given
                with :? ExternalException as e ->
                    fail d.File $"the module failed: {firstLine e}"
          Free = fun () -> script.Dispose() }

    /// Loads the model of a description. A TorchScript archive is a program: load none that you would not run.
    /// Faults: `Unreadable`, `Unknown` and `Contradiction` with the file.
    let load (d: Description) (threads: int) (device: torch.Device) : Result<Encoder, Fault list> =
        try
            match d.Kind with
            | ModelKind.Onnx when device.``type`` <> DeviceType.CPU ->
                Error
                    [ Fault.Contradiction(
                          $"ONNX models run on the CPU here, not on {device}",
                          "leave out --device, or use a TorchScript model"
                      ) ]
            | ModelKind.Onnx -> Ok(onnx d threads)
            | ModelKind.TorchScript -> Ok(torchScript d device)
        with
        | CmclException fault -> Error [ fault ]
        | :? OnnxRuntimeException
        | :? ExternalException
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(d.File, firstLine e) ]
