namespace Cmcl.Encoders

open System
open System.IO
open System.Runtime.InteropServices
open TorchSharp
open Cmcl

/// What goes into an encoder at once, a row an item or a window of one: images, spectrograms, samples (float32) or token numbers (int64); for texts
/// which of them are tokens; for recordings which share of each row is its own.
type EncoderInput =
    { Main: torch.Tensor
      Mask: torch.Tensor option
      Shares: float list }

/// A loaded model. Functions raise `CmclException` for what does not fit the model.
type Encoder =
    {
        /// Features (n × d, float32 on the CPU) of n rows.
        Run: EncoderInput -> torch.Tensor
        /// What an item goes through alone before.
        Before: (torch.Tensor -> torch.Tensor) option
        /// Whether texts of any number of tokens may go in.
        AnyLength: bool
        /// What is doubtful about the description.
        Warnings: string list
        Free: unit -> unit
    }

    interface IDisposable with
        member e.Dispose() = e.Free()

[<RequireQualifiedAccess>]
module Encoder =
    let private fail (file: string) reason : 'a = Check.fail (Fault.Unreadable(file, reason))

    /// What is made of a loaded model, which is freed where that is refused.
    let private owning (make: OnnxModel -> 'a) (model: OnnxModel) : 'a =
        try
            make model
        with _ ->
            (model :> IDisposable).Dispose()
            reraise ()

    /// A model that items go through alone: the batch is one of one.
    let private before (b: Before) (threads: int) : Result<(torch.Tensor -> torch.Tensor) * (unit -> unit), Fault list> =
        Onnx.load b.File threads
        |> Result.map (
            owning (fun model ->
                let input = Onnx.chosen "input" model b.InputName model.Inputs
                let output = Onnx.chosen "output" model b.OutputName model.Outputs

                (fun x ->
                    use scale = b.Scale.AsScalar()
                    Tensors.scoped (fun () -> (Onnx.run model output [ input, x ] * scale).plus b.Shift)),
                (fun () -> (model :> IDisposable).Dispose()))
        )

    // ---- ONNX ----------------------------------------------------------------------------------------------------

    /// Outputs that hold a vector a token, from which a sentence is to be pooled.
    let private tokenOutputs = [ "last_hidden_state"; "token_embeddings"; "hidden_states" ]

    /// A vector beside the tokens that sentence encoders were not trained with: BERT's pooler, CLIP's before the projection.
    let private poolerWarning (d: Description) (model: OnnxModel) (output: string) : string list =
        let tokens = model.Outputs |> List.tryFind (fun name -> name <> output && List.contains name tokenOutputs)

        let projected =
            model.Outputs |> List.tryFind (fun name -> name <> output && name.EndsWith("_embeds", StringComparison.Ordinal))

        let bare = d.Pool = Pool.Done && not (output.EndsWith("_embeds", StringComparison.Ordinal) || output.Contains "sentence")

        match bare, d.Input, tokens, projected with
        | true, _, _, Some name when output.Contains "pool" ->
            [ $"output '{output}' of '{d.File}' comes before the projection that makes encoders comparable: '{name}' comes after it" ]
        | true, Input.Text _, Some name, None when (model.OutputSides output).Length < (model.OutputSides name).Length ->
            [ $"output '{output}' of '{d.File}' looks like BERT's pooler, which sentence encoders are not trained with: they take the mean or the first of '{name}' (\"output\": \"{name}\", \"pool\": \"mean\" or \"cls\")" ]
        | _ -> []

    let private onnx (d: Description) (threads: int) : Result<Encoder, Fault list> =
        Onnx.load d.File threads
        |> Result.map (
            owning (fun model ->
                let mask, types =
                    match d.Input with
                    | Input.Text t -> t.Mask, t.Types
                    | _ -> None, None

                let besides = List.choose id [ mask; types ] @ List.ofSeq d.Zeros.Keys

                for name in besides do
                    Onnx.known "input" model name |> ignore

                let left = model.Inputs |> List.filter (fun name -> not (List.contains name besides))
                let main = Onnx.chosen "input" model d.InputName left

                match left |> List.filter ((<>) main) with
                | [] -> ()
                | extra ->
                    let names = String.Join(", ", extra)
                    fail d.File $"the model also takes {names}, for which the description gives nothing"

                let output = Onnx.chosen "output" model d.OutputName model.Outputs
                let sides = model.Sides main
                // A model may have been exported for so many items at once and no others.
                let together = List.tryHead sides |> Option.filter (fun n -> n > 0) |> Option.map int64

                let run (given: EncoderInput) =
                    Tensors.scoped (fun () ->
                        let n = given.Main.shape[0]

                        let named =
                            [ main, given.Main
                              match mask, given.Mask with
                              | Some name, Some m -> name, m
                              | _ -> ()
                              match types with
                              | Some name -> name, given.Main.zeros_like ()
                              | None -> ()
                              for KeyValue(name, sides) in d.Zeros do
                                  name,
                                  Onnx.zeros
                                      model
                                      name
                                      [| yield n
                                         for side in sides do
                                             yield int64 side |] ]

                        let size = Option.defaultValue n together

                        let piece (first: int64) =
                            let count = min size (n - first)

                            let filled (t: torch.Tensor) =
                                let own = t.narrow (0L, first, count)
                                // The last row again and again, where the model takes more than are left.
                                if count = size then
                                    own
                                else
                                    torch.cat (
                                        [| own; own.narrow(0L, count - 1L, 1L).repeat_interleave(size - count, 0L) |],
                                        0L
                                    )

                            let shares = List.init (int size) (fun i -> given.Shares[int (min (n - 1L) (first + int64 i))])

                            let rows =
                                Onnx.run model output [ for name, t in named -> name, filled t ]
                                |> Pooling.rows $"output '{output}' of '{d.File}'" d.Pool (Option.map filled given.Mask) shares

                            rows.narrow (0L, 0L, count)

                        torch.cat ([| for first in 0L .. size .. n - 1L -> piece first |], 0L))

                { Run = run
                  Before = None
                  AnyLength = sides.Length = 2 && sides[1] < 0
                  Warnings = poolerWarning d model output
                  Free = fun () -> (model :> IDisposable).Dispose() })
        )

    // ---- TorchScript ---------------------------------------------------------------------------------------------

    let private torchScript (d: Description) (device: torch.Device) : Result<Encoder, Fault list> =
        let call, free = Script.load d device

        let run (given: EncoderInput) =
            Tensors.scoped (fun () ->
                let typed (t: torch.Tensor) =
                    match d.Input with
                    | Input.Text x when x.Narrow -> t.``to`` torch.int32
                    | _ -> t

                let inputs =
                    [ typed given.Main
                      match d.Input, given.Mask with
                      | Input.Text x, Some m when x.Mask.IsSome -> typed m
                      | _ -> () ]

                call inputs |> Pooling.rows $"the output of '{d.File}'" d.Pool given.Mask given.Shares)

        Ok
            { Run = run
              Before = None
              AnyLength = false
              Warnings = []
              Free = free }

    /// Loads the model of a description, and the one before it. A TorchScript archive is a program: load none that you would not run.
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
            | ModelKind.TorchScript when not d.Zeros.IsEmpty ->
                Error
                    [ Fault.Contradiction(
                          $"'zeros' of '{d.Name}' names inputs, which TorchScript modules take without names",
                          "leave it out"
                      ) ]
            | ModelKind.Onnx -> onnx d threads
            | ModelKind.TorchScript -> torchScript d device
            |> Result.bind (fun encoder ->
                match d.Before with
                | None -> Ok encoder
                | Some b ->
                    match before b threads with
                    | Error faults ->
                        encoder.Free()
                        Error faults
                    | Ok(run, free) ->
                        Ok
                            { encoder with
                                Before = Some run
                                Free =
                                    fun () ->
                                        free ()
                                        encoder.Free() })
        with
        | CmclException fault -> Error [ fault ]
        | :? ExternalException
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(d.File, Reason.ofException e) ]
