namespace Cmcl

open System
open System.IO
open TorchSharp

/// Second moments of features that lie in many `.npy` files, in one pass over them and in little memory.
[<RequireQualifiedAccess>]
module Shards =
    let private floats = [ torch.ScalarType.Float16; torch.ScalarType.Float32; torch.ScalarType.Float64 ]

    let private features (path: string) : Result<torch.Tensor, Fault list> =
        Npy.map path
        |> Result.bind (fun t ->
            if not (List.contains t.dtype floats) then
                Error
                    [ Fault.BadValue(
                          $"'{path}'",
                          "numbers of type float16, float32 or float64",
                          (string t.dtype).ToLowerInvariant()
                      ) ]
            elif t.dim () <> 2L || t.NumberOfElements = 0L then
                Error [ Fault.Shape($"'{path}'", "rows × d, at least one of each", Tensors.shapeText t) ]
            else
                Ok t)

    /// The rows of a matrix in float64, a block at a time; raises `Fault.NonFinite` at the first that are not finite.
    let private blocks (path: string) (rows: torch.Tensor) : seq<torch.Tensor> =
        seq {
            for first in 0L .. Moment.blockRows .. rows.shape[0] - 1L do
                let count = min Moment.blockRows (rows.shape[0] - first)

                let block =
                    Tensors.scoped (fun () ->
                        let block = rows.narrow(0L, first, count).``to`` torch.float64

                        match Tensors.nonFiniteRow block with
                        | Some row -> Check.fail (Fault.NonFinite($"'{path}'", first + row))
                        | None -> block)

                Mapped.read false count rows
                block
        }

    /// The moment of the rows of one file, whose pages are given back as they were read. Faults: `Missing`, `Unreadable`, `BadValue` and
    /// `Shape` for what is no matrix of floats, `NonFinite` with the row.
    let moment (path: string) : Result<Moment, Fault list> =
        Tensors.scopedWith
            (function
            | Ok m -> [ m.Matrix ]
            | Error _ -> [])
            (fun () ->
                features path
                |> Result.bind (fun rows ->
                    try
                        Ok(Moment.accumulate (blocks path rows))
                    with CmclException fault ->
                        Error [ fault ]))

    /// Refuses files that are given more than once. Fault: `Contradiction` for each.
    let once (paths: string list) : Result<unit, Fault list> =
        match paths |> List.countBy Path.GetFullPath |> List.filter (fun (_, times) -> times > 1) with
        | [] -> Ok()
        | twice ->
            Error
                [ for path, _ in twice ->
                      Fault.Contradiction($"'{path}' is given twice, and its rows would count twice", "give each file once") ]

    /// The moment of everything that some sources have, each by its name: one after another, never two held beside the sum. All
    /// faults are gathered; sources of different widths are one. In another order the result is the same to rounding.
    /// Example: `Shards.merged (fun _ -> Ok(Moment.ofRows xa)) [ "one"; "two" ]`.
    let merged (read: string -> Result<Moment, Fault list>) (names: string list) : Result<Moment, Fault list> =
        let add (sum: Result<(string * Moment) option, Fault list>) (name: string) =
            match sum, read name with
            | Error faults, Error more -> Error(faults @ more)
            | Error faults, Ok m ->
                m.Matrix.Dispose()
                Error faults
            | Ok _, Error faults -> Error faults
            | Ok None, Ok m -> Ok(Some(name, m))
            | Ok(Some(first, sum)), Ok m ->
                if m.Matrix.shape[0] <> sum.Matrix.shape[0] then
                    Error [ Fault.Shape($"'{name}'", $"d = {sum.Matrix.shape[0]}, as '{first}' has", $"d = {m.Matrix.shape[0]}") ]
                else
                    let both = Moment.merge sum m
                    sum.Matrix.Dispose()
                    m.Matrix.Dispose()
                    Ok(Some(first, both))

        once names
        |> Result.bind (fun () ->
            Tensors.scopedWith
                (function
                | Ok m -> [ m.Matrix ]
                | Error _ -> [])
                (fun () ->
                    match List.fold add (Ok None) names with
                    | Ok(Some(_, m)) -> Ok m
                    | Ok None -> Error [ Fault.BadValue("a moment", "at least one file", "none") ]
                    | Error faults -> Error faults))

    /// The moment of all rows of some files.
    let moments (paths: string list) : Result<Moment, Fault list> = merged moment paths

    /// The joint moments of a pair whose matched rows lie in two files, a weight of 1 a row, in one pass over both, of the features
    /// or of what a lift makes of them. Faults: those of `moment`,
    /// of both files, and `Shape` where they have different numbers of rows.
    let joint (lift: SeededLift option) (pair: Pair) (a: string) (b: string) : Result<JointMoments, Fault list> =
        Tensors.scopedWith
            (function
            | Ok(m: JointMoments) -> m.Tensors
            | Error _ -> [])
            (fun () ->
                validated {
                    let! xa = features a
                    and! xb = features b
                    return xa, xb
                }
                |> Result.bind (fun (xa, xb) ->
                    if xa.shape[0] <> xb.shape[0] then
                        Error
                            [ Fault.Shape($"'{b}'", $"{xa.shape[0]} rows, matched with those of '{a}'", $"{xb.shape[0]} rows") ]
                    else
                        let lifted m (x: torch.Tensor) =
                            match lift with
                            | None -> id
                            | Some l ->
                                let directions = Lift.drawn l m x.shape[1]

                                fun (block: torch.Tensor) ->
                                    use block = block
                                    Lift.rows directions (block.``to`` torch.float64)

                        try
                            Seq.zip (blocks a xa |> Seq.map (lifted pair.A xa)) (blocks b xb |> Seq.map (lifted pair.B xb))
                            |> Seq.map (fun (first, second) -> Map [ pair.A, first; pair.B, second ])
                            |> JointMoments.accumulate (Terms.one pair)
                            |> Ok
                        with CmclException fault ->
                            Error [ fault ]))
