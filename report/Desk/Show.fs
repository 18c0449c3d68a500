namespace Cmcl

open System
open System.Globalization
open Plotly.NET
open TorchSharp

/// Values as F# Interactive and notebooks show them; `scripts/load.fsx` registers these as printers.
[<RequireQualifiedAccess>]
module Show =
    /// Rows and columns of a matrix that are shown, the first half and the last half of them.
    let private most = 6L

    let private number (x: float) =
        if x = 0.0 then "0"
        elif abs x >= 1e-3 && abs x < 1e5 then x.ToString("0.####", CultureInfo.InvariantCulture)
        else x.ToString("0.00e+0", CultureInfo.InvariantCulture)

    /// The places of a dimension that are shown; None stands for those left out.
    let private places (size: int64) : int64 option list =
        if size <= most then
            [ for i in 0L .. size - 1L -> Some i ]
        else
            [ for i in 0L .. most / 2L - 1L -> Some i ] @ [ None ] @ [ for i in size - most / 2L .. size - 1L -> Some i ]

    /// Columns as wide as their widest entry.
    let private aligned (rows: string list list) : string list =
        let widths = rows |> List.transpose |> List.map (List.map String.length >> List.max)
        [ for row in rows -> "  " + String.Join("  ", List.map2 (fun (w: int) (text: string) -> text.PadLeft w) widths row) ]

    let private matrix (t: torch.Tensor) : string list =
        let dots = "…"

        aligned
            [ for row in places t.shape[0] ->
                  [ for column in places t.shape[1] ->
                        match row, column with
                        | Some i, Some j -> number (Tensors.toFloat t[i, j])
                        | _ -> dots ] ]

    let private statistics (t: torch.Tensor) : string =
        let wide = t.``to``(torch.float64).cpu().reshape -1L
        let bad = wide.NumberOfElements - wide.isfinite().sum().item<int64>()
        let norm = number (Tensors.norm wide)

        if bad > 0L then
            $"{bad} of {wide.NumberOfElements} not finite"
        else
            let least, most = Tensors.toFloat (wide.min ()), Tensors.toFloat (wide.max ())
            $"{number least} … {number most}, mean {number (Tensors.toFloat (wide.mean ()))}, norm {norm}"

    /// A tensor as its type, shape and device, what its numbers are like, and the corners of the matrix.
    /// Example: `Show.tensor xa`.
    let tensor (t: torch.Tensor) : string =
        use scope = torch.NewDisposeScope()
        let shape = if t.dim () = 0L then "a number" else Tensors.shapeText t
        let device = if t.device_type = DeviceType.CPU then "" else $" on {t.device}"
        let head = $"{t.dtype.ToString().ToLowerInvariant()} {shape}{device}"

        if t.device_type = DeviceType.META || t.NumberOfElements = 0L || torch.is_complex t then
            head
        elif t.dim () = 0L then
            $"{head}: {number (Tensors.toFloat t)}"
        else
            let corner =
                match t.dim () with
                | 1L -> matrix (t.unsqueeze 0L)
                | 2L -> matrix t
                | _ -> []

            String.Join("\n", $"{head}: {statistics t}" :: corner)

    /// Heads by modality, a line each.
    let heads (heads: Heads) : string =
        use scope = torch.NewDisposeScope()

        String.Join(
            "\n",
            [ for KeyValue(m, w) in heads ->
                  let kind = w.dtype.ToString().ToLowerInvariant()
                  $"{m.Name}: {kind} {Tensors.shapeText w}, norm {number (Tensors.norm w)}" ]
        )

    /// A moment: of how many rows, its trace, and how many directions have energy.
    /// Example: `Show.moment ma`.
    let moment (m: Moment) : string =
        let s = Spectrum.decompose m.Matrix

        $"second moment of {m.Count} rows in {m.Matrix.shape[0]} dimensions: trace {number s.Total}, rank {s.NumericalRank} to rounding"

    /// A spectrum: its trace, its rank, the largest shares.
    /// Example: `Show.spectrum (Spectrum.decompose ma.Matrix)`.
    let spectrum (s: Spectrum) : string =
        let shares = s.Shares |> Seq.truncate 5 |> Seq.map number

        $"spectrum of {s.Values.Length} directions: trace {number s.Total}, rank {s.NumericalRank} to rounding, shares "
        + String.Join(", ", shares)
        + (if s.Values.Length > 5 then ", …" else "")

    let private unit (x: Step) = if x.Pairs.IsSome then "pairs" else "rows"

    /// A stream in a line and its steps in a line each.
    let stream (s: Stream) : string =
        let step (x: Step) = $"  {x.Index, 3}  {x.Name}: {x.Train.Length} / {x.Validation.Length} / {x.Test.Length} {unit x}"

        String.Join(
            "\n",
            $"stream {s.Name}: {s.Steps.Length} steps over {(Stream.modalities s).Length} modalities (train / validation / test)"
            :: List.map step s.Steps
        )

    /// A bank of features in a line.
    let bank (b: Bank) : string =
        $"bank {b.Name} of {b.Modality}: {b.Features.dtype.ToString().ToLowerInvariant()} {Tensors.shapeText b.Features}"

    /// A step in a line.
    let step (x: Step) : string =
        $"step {x.Index} {x.Name}: {x.A.Name} with {x.B.Name}, {x.Train.Length} / {x.Validation.Length} / {x.Test.Length} {unit x} (train / validation / test)"

    /// A chart in a line: its traces by name.
    /// As in `Show.chart (Plot.deviation found)`: `a chart of vanilla, dns; Chart.show opens it in a browser, Plot.save writes it`.
    let chart (chart: GenericChart) : string =
        let names =
            [ for trace in GenericChart.getTraces chart do
                  match trace.TryGetTypedPropertyValue<string> "name" with
                  | Some name when not (String.IsNullOrWhiteSpace name) ->
                      string (Net.WebUtility.HtmlDecode(name.Replace("<br>", "")))
                  | _ -> () ]
            |> List.distinct

        let joined (names: string list) = String.Join(", ", names)

        let shown =
            match names with
            | [] -> ""
            | _ when names.Length > 6 -> $" of {joined (List.truncate 6 names)} and {names.Length - 6} more"
            | _ -> $" of {joined names}"

        $"a chart{shown}; Chart.show opens it in a browser, Plot.save writes it"
