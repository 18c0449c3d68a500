namespace Cmcl.Encoders

open System
open System.Runtime.InteropServices
open Microsoft.ML.OnnxRuntime
open Microsoft.ML.OnnxRuntime.Tensors
open TorchSharp
open Cmcl

/// An ONNX model in ONNX Runtime: what it takes and gives, and a run with tensors of ours.
type OnnxModel =
    private
        { File: string
          Session: InferenceSession }

    member m.Inputs: string list = List.ofSeq m.Session.InputMetadata.Keys
    member m.Outputs: string list = List.ofSeq m.Session.OutputMetadata.Keys

    /// Sides of an input; −1 where any will do.
    member m.Sides(input: string) : int list = List.ofArray m.Session.InputMetadata[input].Dimensions

    /// Sides of an output, as far as the model says; 0 or less where any will do.
    member m.OutputSides(output: string) : int list = List.ofArray m.Session.OutputMetadata[output].Dimensions

    interface IDisposable with
        member m.Dispose() = m.Session.Dispose()

[<RequireQualifiedAccess>]
module Onnx =
    let private fail (file: string) reason : 'a = Check.fail (Fault.Unreadable(file, reason))

    /// Loads a model. Faults: `Unreadable`.
    let load (file: string) (threads: int) : Result<OnnxModel, Fault list> =
        try
            use options =
                new SessionOptions(IntraOpNumThreads = threads, LogSeverityLevel = OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)

            Ok
                { File = file
                  Session = new InferenceSession(file, options) }
        with :? OnnxRuntimeException as e ->
            Error [ Fault.Unreadable(file, Reason.ofException e) ]

    /// Refuses a name that the model does not have. Fault, as an exception: `Unknown`.
    let known (kind: string) (m: OnnxModel) (name: string) : string =
        let all = if kind = "input" then m.Inputs else m.Outputs

        if List.contains name all then
            name
        else
            Check.fail (Fault.Unknown($"{kind} of '{m.File}'", name, all))

    /// The name in the description, or the only one that is left. Faults, as exceptions: `Unknown`, `Contradiction`.
    let chosen (kind: string) (m: OnnxModel) (given: string option) (left: string list) : string =
        match given, left with
        | Some name, _ -> known kind m name
        | None, [ only ] -> only
        | None, _ ->
            let names = String.Join(", ", left)

            Check.fail (
                Fault.Contradiction(
                    $"'{m.File}' has more than one {kind} ({names})",
                    $"name one of them as '{kind}' in the description"
                )
            )

    let private halves (t: torch.Tensor) : Float16[] =
        let bits =
            MemoryMarshal.Cast<Half, uint16>(
                ReadOnlySpan(t.``to``(torch.float32).data<float32>().ToArray() |> Array.map Half.op_Explicit)
            )

        bits.ToArray() |> Array.map Float16

    /// Numbers of a tensor as the model wants them.
    let private value (file: string) (name: string) (meta: NodeMetadata) (t: torch.Tensor) : OrtValue =
        let t = t.contiguous ()

        match meta.ElementDataType with
        | TensorElementType.Float when torch.is_floating_point t ->
            OrtValue.CreateTensorValueFromMemory(t.``to``(torch.float32).data<float32>().ToArray(), t.shape)
        | TensorElementType.Float16 when torch.is_floating_point t -> OrtValue.CreateTensorValueFromMemory(halves t, t.shape)
        | TensorElementType.Int64 when t.dtype = torch.int64 ->
            OrtValue.CreateTensorValueFromMemory(t.data<int64>().ToArray(), t.shape)
        | TensorElementType.Int32 when t.dtype = torch.int64 ->
            OrtValue.CreateTensorValueFromMemory(t.``to``(torch.int32).data<int32>().ToArray(), t.shape)
        | TensorElementType.Bool -> OrtValue.CreateTensorValueFromMemory(t.``to``(torch.bool).data<bool>().ToArray(), t.shape)
        | other -> fail file $"its input '{name}' is of type {other}; {t.dtype} is what the description gives it"

    /// Zeros of the type that an input takes, for one that does not matter.
    let zeros (m: OnnxModel) (input: string) (shape: int64[]) : torch.Tensor =
        match m.Session.InputMetadata[input].ElementDataType with
        | TensorElementType.Float
        | TensorElementType.Float16 -> torch.zeros (shape, dtype = torch.float32)
        | _ -> torch.zeros (shape, dtype = torch.int64)

    let private sidesText (sides: int list) : string =
        "[" + String.Join(" × ", sides |> List.map (fun side -> if side < 0 then "any" else string side)) + "]"

    /// A tensor in the sides that the model declares, sides of 1 behind the first put in or left out. Fault, as an exception: `Shape`.
    let private fitted (m: OnnxModel) (name: string) (t: torch.Tensor) : torch.Tensor =
        let sides = m.Sides name
        let own = List.ofArray t.shape

        let agrees (declared: int list) (given: int64 list) =
            declared.Length = given.Length && List.forall2 (fun side size -> side < 0 || int64 side = size) declared given

        let behind = if sides.IsEmpty then [] else List.tail sides
        let wide, given = List.filter ((<>) 1) behind, List.filter ((<>) 1L) (List.tail own)

        if not sides.IsEmpty && agrees behind (List.tail own) then
            t
        elif not sides.IsEmpty && agrees wide given then
            let rec laid (declared: int list) (given: int64 list) =
                match declared, given with
                | 1 :: rest, given -> 1L :: laid rest given
                | _ :: rest, size :: others -> size :: laid rest others
                | _ -> []

            t.reshape (Array.ofList (own.Head :: laid behind given))
        else
            Check.fail (
                Fault.Shape(
                    $"input '{name}' of '{m.File}'",
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

    /// One output of the model for inputs by name, in float32. Faults, as exceptions: `Shape` for inputs of other sides than it takes; `Unreadable` for
    /// other types and for what the model itself fails at.
    let run (m: OnnxModel) (output: string) (inputs: (string * torch.Tensor) list) : torch.Tensor =
        let values = [ for name, t in inputs -> name, value m.File name m.Session.InputMetadata[name] (fitted m name t) ]

        try
            try
                let names, given = List.unzip values
                use options = new RunOptions()
                use outputs = m.Session.Run(options, names, given, [ output ])
                result m.File output (Seq.head outputs)
            with :? OnnxRuntimeException as e ->
                fail m.File $"the model failed: {Reason.ofException e}"
        finally
            for _, value in values do
                value.Dispose()
