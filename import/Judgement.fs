namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// What the rows of a matrix look like.
type RowFigures =
    {
        Rows: int64
        Columns: int64
        /// ‖x‖ of a row: mean, standard deviation, least, largest.
        Norm: float
        NormSd: float
        Least: float
        Most: float
        /// The mean cosine of two different rows: 0 where directions are spread, towards 1 where all rows point the same way.
        Cosine: float
    }

/// Gathers the figures of rows as they pass, block by block. Of a large block every so many rows are looked at.
type internal RowGauge(columns: int64) =
    let mutable count, sum, squares, least, most = 0L, 0.0, 0.0, Double.PositiveInfinity, 0.0
    let direction = Array.zeroCreate<float>(int columns)

    /// Rows of a block that are looked at, about.
    let looked = 512L

    member _.Add(block: torch.Tensor) : unit =
        use scope = torch.NewDisposeScope()
        let step = max 1L (block.shape[0] / looked)
        let rows = block.slice(0L, 0L, block.shape[0], step).``to`` torch.float64
        let norms = rows.norm (1, true)
        let units = (rows / norms.clamp_min (Double.Epsilon.AsScalar())).sum 0L
        let each = norms.data<float>().ToArray()

        for norm in each do
            count <- count + 1L
            sum <- sum + norm
            squares <- squares + norm * norm
            least <- min least norm
            most <- max most norm

        units.data<float>().ToArray() |> Array.iteri (fun i x -> direction[i] <- direction[i] + x)

    member _.Figures(rows: int64) : RowFigures =
        let n = float (max 1L count)
        let mean = sum / n
        let all = direction |> Array.sumBy (fun x -> x * x)

        { Rows = rows
          Columns = columns
          Norm = mean
          NormSd = sqrt (max 0.0 (squares / n - mean * mean))
          Least = least
          Most = most
          Cosine = if count < 2L then 0.0 else (all - n) / (n * (n - 1.0)) }

/// What imported rows are like, and the training that suits them: said at the end of an import, and written into the stream.
[<RequireQualifiedAccess>]
module Judgement =

    let private text (format: string) (x: float) = x.ToString(format, CultureInfo.InvariantCulture)

    /// Whether rows are of length 1.
    let isUnit (f: RowFigures) : bool = Advice.isUnit f.Least f.Most

    /// A line on the rows of each bank.
    let lines (banks: (string * RowFigures) list) : string list =
        let width = banks |> List.map (fst >> String.length) |> List.fold max 0

        [ for name, f in banks ->
              let norm =
                  if isUnit f then "norm 1"
                  elif f.NormSd < 0.005 * f.Norm then $"norm {Advice.size f.Norm}"
                  else $"norm {Advice.size f.Norm} ± {Advice.size f.NormSd}"

              let few = if f.Rows < 2L * f.Columns then "; few rows a column" else ""

              $"""  {name.PadRight width}  {f.Rows.ToString("N0", CultureInfo.InvariantCulture)} × {f.Columns} ({text "0.#" (float f.Rows / float f.Columns)} rows a column{few}), {norm}, mean cosine {text "0.00" (Math.Round(f.Cosine, 2) + 0.0)}""" ]

    /// What is said of the preset, and why.
    let reason (banks: (string * RowFigures) list) (preset: Map<string, string>) : string =
        let odd = banks |> List.filter (snd >> isUnit >> not)
        let value key = Map.find key preset

        let why =
            match odd with
            | [] -> "Rows are of length 1, and cosine scores are their inner products"
            | (name, f) :: _ -> Advice.why name f.Norm

        let close = banks |> List.filter (fun (_, f) -> f.Cosine > 0.5) |> List.map fst

        let narrow =
            match close with
            | [] -> ""
            | names -> $" Rows of {StreamDraft.firstFew names} point in much the same direction (mean cosine above 0.5)."

        $"""{why}: the preset in stream.json has scores=cosine, temperature={value "temperature"}, lr={value "lr"}, epochs={value "epochs"}, batch={value "batch"}; options of cmcl run override it, cmcl tune finds better.{narrow}"""
