namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// What can be said of a bank at a glance.
type BankSummary =
    {
        Name: string
        Modality: Modality
        Rows: int64
        /// d.
        Dimension: int64
        /// As stored: float16, float32 or float64.
        Type: string
        /// Mean and standard deviation (of the population) of the rows' Euclidean norms.
        NormMean: float
        NormDeviation: float
        /// Directions whose energy is above the rounding of the stored type.
        Rank: int64
        /// Of at most `Describe.ConeRows` of its rows.
        Cone: Cone
    }

/// A stream in words: as values, and as text for a terminal.
[<RequireQualifiedAccess>]
module Describe =

    /// Rows of a bank that its cone is taken of at most, drawn by a seed of the bank's name.
    [<Literal>]
    let ConeRows = 20000L

    /// The share of the mean above which a bank's rows are called a narrow cone.
    [<Literal>]
    let private Narrow = 0.5

    /// Calls `act` with each block of a bank's rows, in float64, after the number of the first of them. Nothing that outlives
    /// a block should be made between two, or the heap keeps a hole for each.
    let private overBlocks (features: torch.Tensor) (act: int64 -> torch.Tensor -> unit) : unit =
        for first, count in Tensors.rowBlocks features do
            use scope = torch.NewDisposeScope()
            act first (features.narrow(0L, first, count).``to`` torch.float64)
            Mapped.read false count features

    /// XᵀX in float64.
    let private gram (features: torch.Tensor) : torch.Tensor =
        let d = features.shape[1]
        let sum = torch.zeros (d, d, dtype = Nullable torch.float64)
        overBlocks features (fun _ x -> sum.plus_ (Tensors.product x.mT x) |> ignore)
        sum

    /// The Euclidean norm of each row, in float64.
    let private norms (features: torch.Tensor) : torch.Tensor =
        let all = torch.empty (features.shape[0], dtype = Nullable torch.float64)
        overBlocks features (fun first x -> all.narrow(0L, first, x.shape[0]).copy_(x.norm 1) |> ignore)
        all

    /// The number of eigenvalues of XᵀX above what rounding the features to their stored type leaves behind,
    /// max(ε² tr(XᵀX) / min(n, d), d ε₆₄ λ_max): every direction that the features really take.
    let rank (features: torch.Tensor) : int64 =
        use scope = torch.NewDisposeScope()
        let energies = torch.linalg.eigvalsh (gram features)

        let epsilon =
            if features.dtype = torch.float16 then 9.765625e-4
            elif features.dtype = torch.float32 then Tolerance.epsilon Dtype.Float32
            else Tolerance.epsilon Dtype.Float64

        let n, d = features.shape[0], features.shape[1]
        let stored = epsilon * epsilon * Tensors.toFloat (energies.sum ()) / float (min n d)

        let computed = float d * Tolerance.epsilon Dtype.Float64 * Tensors.toFloat (energies.max ())

        int64 (Tensors.toFloat (energies.gt(torch.tensor (max stored computed)).sum()))

    let private typeName (t: torch.Tensor) : string = (string t.dtype).ToLowerInvariant()

    /// One bank.
    let bank (bank: Bank) : BankSummary =
        use scope = torch.NewDisposeScope()
        let norms = norms bank.Features

        { Name = bank.Name
          Modality = bank.Modality
          Rows = bank.Features.shape[0]
          Dimension = bank.Features.shape[1]
          Type = typeName bank.Features
          NormMean = Tensors.toFloat (norms.mean ())
          NormDeviation = Tensors.toFloat (norms.std (unbiased = false))
          Rank = rank bank.Features
          Cone = Cone.ofSome ConeRows (Seed.ofInt 0 |> Seed.split $"cone of {bank.Name}") bank.Features }

    /// The banks, in the order of their names.
    let banks (stream: Stream) : BankSummary list = stream.Banks |> Map.values |> Seq.map bank |> List.ofSeq

    // ---- text ----------------------------------------------------------------------------------------------------

    let private table (width: int) (columns: LayoutColumn list) (rows: string list list) : string list =
        { Columns = columns
          Rows = [ for row in rows -> Some(List.map Layout.plain row) ]
          Elsewhere = "A wider terminal shows them." }
        |> Layout.table (fun _ text -> text) width

    let private number (value: float) : string = value.ToString("0.###", CultureInfo.InvariantCulture)

    let private stepRow (step: Step) : string list =
        [ string step.Index
          step.Name
          step.A.Name
          step.B.Name
          string step.Pair
          string step.Train.Length
          string step.Validation.Length
          string step.Test.Length
          match step.Accuracy with
          | Some accuracy -> string accuracy.Classes.Length
          | None -> "–" ]

    /// What the numbers of a step with pairs count.
    let private pairLines (width: int) (step: Step) : string list =
        match step.Pairs with
        | None -> []
        | Some pairs ->
            let distinct (rows: int64[]) = (Array.distinct rows).Length

            Layout.wrap
                (width - 2)
                $"{step.Name}: {pairs.A.Length} pairs of {distinct pairs.A} rows of {step.A.Name} and {distinct pairs.B} rows of {step.B.Name}, {distinct pairs.Items} items; train, val and test count pairs, and an epoch takes one of each of {Stream.visits step} items"
            |> List.map (fun line -> "  " + line)

    let private bankRow (b: BankSummary) : string list =
        [ b.Name
          b.Modality.Name
          string b.Rows
          string b.Dimension
          b.Type
          $"{number b.NormMean} ± {number b.NormDeviation}"
          string b.Rank
          b.Cone.MeanShare.ToString("0.00", CultureInfo.InvariantCulture)
          b.Cone.EffectiveRank.ToString("0.0", CultureInfo.InvariantCulture) ]

    /// What the columns of the cone are of where that is not every row, and which banks are narrow cones.
    let private coneLines (width: int) (banks: BankSummary list) : string list =
        let sampled = banks |> List.filter (fun b -> b.Rows > ConeRows)
        let narrow = banks |> List.filter (fun b -> b.Cone.MeanShare > Narrow)
        let shares = narrow |> List.map (fun b -> Math.Round(100.0 * b.Cone.MeanShare))

        [ if not sampled.IsEmpty then
              $"mean share and eff. rank: of {ConeRows} rows, drawn by a seed, of banks with more"
          if not narrow.IsEmpty then
              let names = String.Join(", ", [ for b in narrow -> b.Name ])
              let least, most = List.min shares, List.max shares
              let share = if least = most then $"{least} %%" else $"{least} to {most} %%"

              $"Narrow cones: one direction, the mean, carries {share} of the squared length of unit rows of {names}: the cosine of any two of them is near that."
              "To centre a bank, take the mean of its training rows off all its rows and its prototypes, and save it anew. Measured (scripts/cones.fsx): zero-shot comes back, old scores move a third less, recall after training changes by 0 to 2.5 points, either way." ]
        |> List.collect (Layout.wrap (width - 2))
        |> List.map (fun line -> "  " + line)

    let private headLine (stream: Stream) : string =
        match stream.Heads with
        | None -> $"heads before any step: identities, joint d = {Stream.joint stream}"
        | Some heads ->
            let each = String.Join(", ", [ for KeyValue(m, w) in heads -> $"{m} {w.shape[0]} × {w.shape[1]} {typeName w}" ])
            $"heads before any step: {each}"

    let private settings (options: Map<string, string>) : string =
        String.Join("  ", [ for KeyValue(name, value) in options -> $"{name}={value}" ])

    let private presetLines (width: int) (preset: Preset) : string list =
        [ if not preset.Common.IsEmpty then
              "every method", settings preset.Common
          for KeyValue(name, options) in preset.Methods do
              name, settings options
          if not preset.Run.IsEmpty then
              "run", String.Join("  ", preset.Run) ]
        |> List.collect (fun (title, text) -> Layout.titled (width - 2) 17 title text)
        |> List.map (fun line -> "  " + line)

    /// Steps (`val` validation rows, `classes` those that accuracy is taken over), banks, digest and preset as lines for a terminal of so many columns.
    let lines (width: int) (stream: Stream) : string list =
        let banks = banks stream

        [ yield! Layout.wrap width stream.Name
          yield! Layout.wrap (width - 2) stream.Description |> List.map (fun line -> "  " + line)
          ""
          yield!
              table
                  width
                  [ Layout.figures 0 "step"
                    Layout.words 0 "name"
                    Layout.words 1 "a"
                    Layout.words 1 "b"
                    Layout.words 5 "pair"
                    Layout.figures 0 "train"
                    Layout.figures 3 "val"
                    Layout.figures 3 "test"
                    Layout.figures 4 "classes" ]
                  (List.map stepRow stream.Steps)
          yield! stream.Steps |> List.collect (pairLines width)
          ""
          yield!
              table
                  width
                  [ Layout.words 0 "bank"
                    Layout.words 1 "modality"
                    Layout.figures 0 "rows"
                    Layout.figures 0 "d"
                    Layout.words 3 "type"
                    Layout.figures 4 "norm (mean ± sd)"
                    Layout.figures 2 "rank"
                    Layout.figures 0 "mean share"
                    Layout.figures 0 "eff. rank" ]
                  (List.map bankRow banks)
          yield! coneLines width banks
          for sentence in Option.toList (Advice.unsaid [] stream) do
              yield! Layout.wrap (width - 2) sentence |> List.map (fun line -> "  " + line)
          ""
          yield! Layout.wrap (width - 2) (headLine stream) |> List.map (fun line -> "  " + line)
          yield! Layout.wrap (width - 2) $"digest {stream.Digest}" |> List.map (fun line -> "  " + line)

          match presetLines width stream.Preset with
          | [] -> ()
          | lines ->
              ""
              "  suggested settings"
              yield! lines ]

    /// The same as one text, for a terminal of 100 columns.
    let text (stream: Stream) : string = String.Join("\n", lines 100 stream)
