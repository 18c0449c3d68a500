namespace Cmcl

open System
open TorchSharp

/// Joint moments as a file has them.
type SavedMoments =
    {
        Moments: JointMoments
        /// What stands beside the features that they are of; None for features as they came.
        Lift: SeededLift option
    }

/// Joint moments on disk: a `.safetensors` file with the tensors of `JointMoments.toNamed` (`second/M`, `cross/A|B`, F64, and the weight
/// of each under its name with `#` behind it) and the texts `format`, `cmcl-joint-moments/1`, and `features` and `seed` where they are lifted.
[<RequireQualifiedAccess>]
module JointMomentFile =
    [<Literal>]
    let private Format = "cmcl-joint-moments/1"

    /// Writes them whole or not at all; the same moments give the same bytes. Fault: `Unwritable`.
    let write (path: string) (m: SavedMoments) : Result<unit, Fault list> =
        Tensors.scopedWith (fun _ -> []) (fun () ->
            Safetensors.write
                path
                { Tensors = JointMoments.toNamed m.Moments |> Map.map (fun _ t -> t.cpu ())
                  Metadata = Map(("format", Format) :: Lift.texts m.Lift) })

    /// How far entries may be from symmetry, beside the largest: two sums of the same products in another order.
    [<Literal>]
    let private Asymmetry = 1e-9

    let private modality (path: string) (name: string) : Result<Modality, Fault list> =
        Modality.create name |> Result.mapError (fun _ -> [ Fault.Unreadable(path, $"'{name}' is no name of a modality") ])

    /// What is wrong with a name and its tensor.
    let private entryFaults (path: string) (tensors: Map<string, torch.Tensor>) (name: string) (t: torch.Tensor) : Fault list =
        let unreadable reason = [ Fault.Unreadable(path, reason) ]
        let parts = name.TrimEnd('#').Split '/'

        match parts with
        | [| "second" | "cross"; modalities |] ->
            let named = [ for m in modalities.Split '|' -> modality path m ] |> Check.all
            let width (m: string) = Map.tryFind $"second/{m}" tensors |> Option.map (fun s -> s.shape[0])
            let float64 = t.dtype = torch.float64

            match named, List.ofArray (modalities.Split '|') with
            | Error faults, _ -> faults
            | _ when name.EndsWith '#' ->
                if float64 && t.NumberOfElements = 1L && Double.IsFinite(Tensors.toFloat t) && Tensors.toFloat t > 0.0 then
                    []
                else
                    unreadable $"'{name}' is no number above 0"
            | _ when not (tensors.ContainsKey(name + "#")) -> unreadable $"'{name}' has no weight, '{name}#'"
            | _ when not float64 || t.dim () <> 2L ->
                [ Fault.Shape($"'{name}' in '{path}'", "a matrix, Float64", $"{Tensors.shapeText t} {t.dtype}") ]
            | Ok _, [ m ] when parts[0] = "second" && t.shape[0] = t.shape[1] ->
                match Tensors.nonFiniteRow t with
                | Some row -> [ Fault.NonFinite($"'{name}' in '{path}'", row) ]
                | None when Tensors.norm (t - t.t ()) > Asymmetry * Tensors.norm t ->
                    unreadable $"the moment of {m} is not symmetric"
                | None when Tensors.toFloat (t.diagonal().min()) < 0.0 ->
                    unreadable $"the moment of {m} has a number below zero on its diagonal"
                | None -> []
            | Ok _, [ a; b ] when parts[0] = "cross" && a < b && (width a, width b) = (Some t.shape[0], Some t.shape[1]) ->
                match Tensors.nonFiniteRow t with
                | Some row -> [ Fault.NonFinite($"'{name}' in '{path}'", row) ]
                | None -> []
            | _ -> unreadable $"'{name}' does not fit: {Tensors.shapeText t} beside the moments of its modalities"
        | _ -> unreadable $"there is a tensor '{name}', which is none of second/M, cross/A|B and their weights"

    /// Is it a file of joint moments, by its format?
    let is (path: string) : bool =
        use scope = torch.NewDisposeScope()

        match Safetensors.read path with
        | Ok content -> Map.tryFind "format" content.Metadata = Some Format
        | Error _ -> false

    /// Reads them, checked: format, names, weights, shapes, finite and symmetric numbers. Faults: `Missing`, `Unreadable`, `Shape`, `NonFinite`.
    let read (path: string) : Result<SavedMoments, Fault list> =
        Tensors.scopedWith
            (function
            | Ok(m: SavedMoments) -> m.Moments.Tensors
            | Error _ -> [])
            (fun () ->
                Safetensors.read path
                |> Result.bind (fun content ->
                    let about = Map.tryFind "format" content.Metadata |> Option.defaultValue "nothing"

                    let faults =
                        if about <> Format then
                            [ Fault.Unreadable(
                                  path,
                                  $"it has no moments of a pair: its 'format' says {about} instead of {Format} (cmcl moments pair makes one)"
                              ) ]
                        else
                            [ for KeyValue(name, t) in content.Tensors do
                                  yield! entryFaults path content.Tensors name t ]

                    match faults with
                    | [] when content.Tensors.IsEmpty -> Error [ Fault.Unreadable(path, "there are no moments in it") ]
                    | [] ->
                        Lift.ofTexts $"'{path}'" content.Metadata
                        |> Result.map (fun lift ->
                            { Moments = JointMoments.ofNamed content.Tensors
                              Lift = lift })
                    | faults -> Error faults))

    /// Reads several, each once, which have to be of the same features. Faults, beside those of `read`: `Contradiction`.
    let readAll (paths: string list) : Result<JointMoments list * SeededLift option, Fault list> =
        paths
        |> List.map read
        |> Check.all
        |> Result.bind (fun all ->
            let first = all.Head.Lift

            match List.zip paths all |> List.tryFind (fun (_, m) -> m.Lift <> first) with
            | None -> Ok([ for m in all -> m.Moments ], first)
            | Some(other, m) ->
                Error
                    [ Fault.Contradiction(
                          $"'{paths.Head}' has moments of features {Lift.describe first}, and '{other}' of {Lift.describe m.Lift}",
                          "take moments of the same features (--features and --seed of cmcl moments pair)"
                      ) ])
