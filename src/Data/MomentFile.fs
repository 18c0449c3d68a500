namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// A second moment on disk: a `.safetensors` file with one tensor, `moment` (d × d, F64), and beside it the texts `format`
/// (`cmcl-moment/1`) and `count`, the rows behind it.
[<RequireQualifiedAccess>]
module MomentFile =
    [<Literal>]
    let private Format = "cmcl-moment/1"

    [<Literal>]
    let private Name = "moment"

    /// Writes it whole or not at all; the same moment gives the same bytes.
    let write (path: string) (m: Moment) : Result<unit, Fault list> =
        Tensors.requireMatrix $"a moment for '{path}'" m.Matrix.shape[0] m.Matrix.shape[0] m.Matrix

        Safetensors.write
            path
            { Tensors = Map [ Name, m.Matrix ]
              Metadata = Map [ "format", Format; "count", m.Count.ToString CultureInfo.InvariantCulture ] }

    /// How far entries may be from symmetry, beside the largest: two sums of the same products in another order.
    [<Literal>]
    let private Asymmetry = 1e-9

    let private check (path: string) (content: NamedTensors) : Result<Moment, Fault list> =
        use scope = torch.NewDisposeScope()
        let about name = Map.tryFind name content.Metadata |> Option.defaultValue "nothing"
        let unreadable reason = Error [ Fault.Unreadable(path, reason) ]

        match
            about "format",
            Int64.TryParse(about "count", NumberStyles.None, CultureInfo.InvariantCulture),
            Map.toList content.Tensors
        with
        | format, _, _ when format <> Format -> unreadable $"it is no moment: its 'format' says {format} instead of {Format}"
        | _, (false, _), _
        | _, (true, 0L), _ -> unreadable $"""its 'count' says {about "count"} where a whole number from 1 is needed"""
        | _, (true, count), [ Name, t ] when
            t.dtype = torch.float64 && t.dim () = 2L && t.shape[0] = t.shape[1] && t.shape[0] > 0L
            ->
            match Tensors.nonFiniteRow t with
            | Some row -> Error [ Fault.NonFinite($"the moment in '{path}'", row) ]
            | None ->
                let size = Tensors.toFloat (t.abs().max())

                if Tensors.toFloat ((t - t.t ()).abs().max()) > Asymmetry * size then
                    unreadable "its matrix is not symmetric, as XᵀX/n is"
                elif Tensors.toFloat (t.diagonal().min()) < 0.0 then
                    unreadable "its matrix has a number below zero on its diagonal, where XᵀX/n has mean squares"
                else
                    Ok { Count = count; Matrix = scope.MoveToOuter(t.clone ()) }
        | _ ->
            let found = [ for KeyValue(name, t) in content.Tensors -> $"{name} {Tensors.shapeText t} {t.dtype}" ]
            Error [ Fault.Shape($"'{path}'", $"one tensor, '{Name}', square and Float64", String.Join(", ", found)) ]

    /// Reads it, checked: format, count, shape, finite and symmetric numbers. Faults: `Missing`, `Unreadable`, `Shape`, `NonFinite`.
    let read (path: string) : Result<Moment, Fault list> =
        Tensors.scopedWith
            (function
            | Ok m -> [ m.Matrix ]
            | Error _ -> [])
            (fun () -> Safetensors.read path |> Result.bind (check path))
