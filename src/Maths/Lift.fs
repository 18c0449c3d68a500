namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// What the columns of a lift are of a row's random directions.
[<RequireQualifiedAccess>]
type LiftKind =
    /// relu(xR − b‖x‖)/√D: a direction counts where the row is further along it than b.
    | Relu
    /// √2·‖x‖ cos(b·xR/‖x‖ + p)/√D: random Fourier features of the row's direction (Rahimi & Recht 2007).
    | Cos

/// Columns that stand beside a modality's features, φ(x) = [x, …]: functions of them that are drawn once and never trained. Heads stay
/// linear in φ(x), so what holds for linear heads holds for these, which are nonlinear in x (theory.md, section 11).
type Lift =
    {
        Kind: LiftKind
        /// D, how many there are.
        Columns: int
        /// b: the offset of `Relu`, the bandwidth of `Cos`.
        Scale: float
    }

/// A lift and the seed that draws it, for every modality its own directions.
type SeededLift =
    {
        Lift: Lift
        /// As a run's seed.
        Seed: int
    }

/// A lift as it was drawn for one modality.
type LiftDirections =
    {
        Lift: Lift
        /// R, d_m × D, standard normal, float64.
        Normal: torch.Tensor
        /// p, D numbers from 0 to 2π, float64; `Relu` has no use for them.
        Phases: torch.Tensor
    }

/// Random features beside those of the encoders: the cheapest head that is not linear (Rahimi & Recht 2007; RanPAC, McDonnell et al. 2023).
[<RequireQualifiedAccess>]
module Lift =
    /// An offset of one: about a direction in six counts for a row.
    [<Literal>]
    let private UsualScale = 1.0

    /// So many columns of rectified directions. Example: `Lift.relu 512`.
    let relu (columns: int) : Lift =
        { Kind = LiftKind.Relu
          Columns = columns
          Scale = UsualScale }

    /// So many columns of random Fourier features. Example: `Lift.cos 512`.
    let cos (columns: int) : Lift =
        { Kind = LiftKind.Cos
          Columns = columns
          Scale = UsualScale }

    /// What `parse` takes.
    let form: string = "raw, relu:D, relu:D:OFFSET, cos:D or cos:D:BANDWIDTH, D columns from 1 to 65536"

    /// As users write it: `raw` for none. Example: `Lift.show (Some (Lift.relu 512)) = "relu:512"`.
    let show (lift: Lift option) : string =
        match lift with
        | None -> "raw"
        | Some l ->
            let kind =
                match l.Kind with
                | LiftKind.Relu -> "relu"
                | LiftKind.Cos -> "cos"

            let columns = l.Columns.ToString CultureInfo.InvariantCulture

            if l.Scale = UsualScale then
                $"{kind}:{columns}"
            else
                $"{kind}:{columns}:" + l.Scale.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e')

    /// A lift as users write it; None for what is none. Example: `Lift.parse "relu:512:0.5"`.
    let parse (text: string) : Lift option option =
        let kind (name: string) =
            match name with
            | "relu" -> Some LiftKind.Relu
            | "cos" -> Some LiftKind.Cos
            | _ -> None

        let columns (given: string) =
            match Int32.TryParse(given, NumberStyles.None, CultureInfo.InvariantCulture) with
            | true, n when n >= 1 && n <= 65536 -> Some n
            | _ -> None

        let scale (given: string) =
            match Double.TryParse(given, NumberStyles.Float, CultureInfo.InvariantCulture) with
            | true, x when Double.IsFinite x && x >= 0.0 -> Some x
            | _ -> None

        let lift name given b =
            match kind name, columns given, b with
            | Some kind, Some columns, Some scale when kind = LiftKind.Relu || scale > 0.0 ->
                Some(Some { Kind = kind; Columns = columns; Scale = scale })
            | _ -> None

        match text.Split ':' with
        | [| "raw" |] -> Some None
        | [| name; given |] -> lift name given (Some UsualScale)
        | [| name; given; b |] -> lift name given (scale b)
        | _ -> None

    /// How many columns it adds. Example: `Lift.added (Some (Lift.relu 512)) = 512L`.
    let added (lift: Lift option) : int64 = lift |> Option.map (fun l -> int64 l.Columns) |> Option.defaultValue 0L

    /// Draws its directions for features of so many columns: the same for the same lift, seed, modality and width, on every device and
    /// in every type (they are numbers of float32). Example: `Lift.draw (Seed.ofInt 0) pair.A 8L (Lift.relu 16)`.
    let draw (seed: Seed) (modality: Modality) (columns: int64) (lift: Lift) : LiftDirections =
        Tensors.scopedWith (fun d -> [ d.Normal; d.Phases ]) (fun () ->
            let seed = seed |> Seed.split "lift" |> Seed.split modality.Name
            use g = Seed.generator (Seed.split "phases" seed)
            let single (t: torch.Tensor) = t.``to``(torch.float32).``to`` torch.float64

            { Lift = lift
              Normal = Seed.normal [ columns; int64 lift.Columns ] seed |> single
              Phases =
                torch.rand (int64 lift.Columns, dtype = Nullable torch.float64, generator = g) * (2.0 * Math.PI).AsScalar()
                |> single })

    /// The same by a number. Example: `Lift.drawn { Lift = Lift.relu 16; Seed = 0 } pair.A 8L`.
    let drawn (l: SeededLift) (modality: Modality) (columns: int64) : LiftDirections =
        draw (Seed.ofInt l.Seed) modality columns l.Lift

    /// In words: `raw`, or `relu:512, seed 0`. Example: `Lift.describe None = "raw"`.
    let describe (l: SeededLift option) : string =
        match l with
        | None -> show None
        | Some l -> $"{show (Some l.Lift)}, seed {l.Seed}"

    /// What texts say: `features` and `seed`, as those of saved heads and moments do. Faults: `BadValue`, `Contradiction` for a lift without a seed.
    /// Example: `Lift.ofTexts "the heads" (Map [ "features", "relu:512"; "seed", "0" ])`.
    let ofTexts (what: string) (texts: Map<string, string>) : Result<SeededLift option, Fault list> =
        let seed =
            Map.tryFind "seed" texts
            |> Option.bind (fun given ->
                match Int32.TryParse(given, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture) with
                | true, n -> Some n
                | _ -> None)

        match Map.tryFind "features" texts with
        | None -> Ok None
        | Some given ->
            match parse given, seed with
            | Some None, _ -> Ok None
            | Some(Some lift), Some seed -> Ok(Some { Lift = lift; Seed = seed })
            | Some(Some _), None ->
                Error
                    [ Fault.Contradiction(
                          $"{what} is of features={given}, and nothing in it says by which seed they are drawn",
                          "write it again, or give its metadata the seed"
                      ) ]
            | None, _ -> Error [ Fault.BadValue($"'features' of {what}", form, given) ]

    /// The texts that `ofTexts` reads; none for features as they came. Example: `Lift.texts None = []`.
    let texts (l: SeededLift option) : (string * string) list =
        match l with
        | None -> []
        | Some l -> [ "features", show (Some l.Lift); "seed", l.Seed.ToString CultureInfo.InvariantCulture ]

    /// φ(x) of rows (n × d_m): n × (d_m + D), in their type and on their device. φ(cx) = cφ(x) for c ≥ 0, so the scale that an encoder
    /// gave its features is nothing to a lift. Fault: `Shape` for rows of another width.
    /// Example: `Lift.rows (Lift.draw (Seed.ofInt 0) pair.A xa.shape[1] (Lift.relu 16)) xa`.
    let rows (d: LiftDirections) (x: torch.Tensor) : torch.Tensor =
        Tensors.requireMatrix "features" -1L d.Normal.shape[0] x

        Tensors.scoped (fun () ->
            let like (t: torch.Tensor) = t.``to``(x.dtype).``to`` x.device
            let along = Tensors.product x (like d.Normal)
            let norm = x.norm (1, keepdim = true)

            let made =
                match d.Lift.Kind with
                | LiftKind.Relu -> (along - norm * d.Lift.Scale.AsScalar()).clamp_min(0.0.AsScalar())
                | LiftKind.Cos ->
                    let direction = along / norm.clamp_min (1e-30.AsScalar())
                    let turned = direction * d.Lift.Scale.AsScalar() .+ like d.Phases
                    turned.cos () * norm * (sqrt 2.0).AsScalar()

            torch.cat ([| x; made * (1.0 / sqrt (float d.Lift.Columns)).AsScalar() |], 1L))

    /// Weights of features as they came, made weights of lifted ones: columns of zeros behind them, so that the outputs are the same.
    /// Example: `Lift.heads (Some (Lift.relu 16)) heads`.
    let heads (lift: Lift option) (heads: Heads) : Heads =
        match lift with
        | None -> heads
        | Some l ->
            heads
            |> Map.map (fun _ w ->
                Tensors.scoped (fun () ->
                    torch.cat ([| w; torch.zeros (w.shape[0], int64 l.Columns, dtype = w.dtype, device = w.device) |], 1L)))
