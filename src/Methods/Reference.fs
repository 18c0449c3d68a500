namespace Cmcl

open TorchSharp

/// What the published code of DNS does, numbered as in docs/methods.md, so that its figures can be compared. One more
/// peculiarity, moments of the wrong columns for some steps, is not reproduced.
[<RequireQualifiedAccess>]
module Reference =
    type Options = { Threshold: Threshold }

    /// Its threshold is absolute (λ_min), as in the published code.
    let defaults: Options = { Threshold = Threshold.absolute 0.01 |> Check.get }

    let threshold: Opt<Options, Threshold> =
        Shared.threshold (fun (o: Options) -> o.Threshold) (fun v _ -> { Threshold = v })
        |> Opt.tried [ "absolute:1e-4"; "absolute:1e-3"; "absolute:1e-2"; "absolute:1e-1" ]
        |> Opt.ownDefault

    let private samples = "samples"
    let private inputName (m: Modality) = $"input/{m}"

    let private seen (memory: Memory) : int64 =
        match Map.tryFind samples memory with
        | Some n -> n.cpu().item<int64>()
        | None -> 0L

    /// C ← C n̄/(n̄ + n) + XᵀX/(n̄ + n), n̄ being the samples of all modalities together (4).
    let private accumulate (memory: Memory) (tasks: Task list) : Memory =
        let addTask (memory: Memory) (task: Task) =
            let before, now = seen memory, seen memory + task.Count

            // Of the features alone, without the 1 behind them.
            let features = task |> Task.map (fun _ x -> Tensors.scoped (fun () -> x.narrow(1L, 0L, x.shape[1] - 1L).contiguous()))

            let addSide (memory: Memory) m =
                let added = (Task.moment m features).Matrix * (float task.Count / float now).AsScalar()

                match Map.tryFind (inputName m) memory with
                | Some old -> Map.add (inputName m) (old * (float before / float now).AsScalar() .+ added) memory
                | None -> Map.add (inputName m) added memory

            task.Modalities |> List.fold addSide memory |> Map.add samples (torch.tensor now)

        List.fold addTask memory tasks

    /// P̃ comes out as the identity in the published code (1), so that Δ = G (I − P): projected before the optimizer (2), the
    /// bias column not at all (5).
    let private pass (settings: Settings) (free: Map<Modality, torch.Tensor>) (weights: Heads) (batch: Batch) : Pass =
        let raw = Direction.pass (Training.plain settings) Map.empty weights batch

        let project m (g: torch.Tensor) =
            match Map.tryFind m free with
            | Some p -> torch.cat ([| g.narrow(1L, 0L, p.shape[0]).mm p; g.narrow (1L, p.shape[0], 1L) |], 1L)
            | None -> g

        { raw with
            Gradients = raw.Gradients |> Map.map project |> Training.clippedAs raw.Gradients settings }

    let private begin' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        let settings = context.Settings

        let spectra =
            Map
                [ for m in Training.moving tasks do
                      match Map.tryFind (inputName m) memory with
                      | Some c -> m, Spectrum.decompose c
                      | None -> () ]

        let free =
            spectra
            |> Map.map (fun _ s ->
                let p = Spectrum.projector (Spectrum.rank o.Threshold s) s

                Tensors.scoped (fun () ->
                    (torch.eye (p.shape[0], dtype = p.dtype, device = p.device) - p).``to`` settings.Dtype.Torch))

        { Training.plainSession context memory heads tasks with
            Direction = Direction.Of(pass settings free)
            Rule =
                Rule.Recipe
                    { Training.recipe context Map.empty with
                        Clip = None
                        Exempt = 1L }
            Spectra =
                [ for KeyValue(m, s) in spectra ->
                      { Modality = m
                        Side = "input"
                        Shares = s.Shares
                        Protected = Some(Spectrum.rank o.Threshold s) } ] }

    /// The published code's behaviour.
    let reference: Spec<Options> =
        let make o =
            { Training.method
                  "reference"
                  "what the published code does: one-sided, gradient projected, then AdamW; biases unprotected" with
                Bias = true
                Initial =
                    Heads.map (fun w ->
                        Tensors.scoped (fun () ->
                            torch.cat ([| w; torch.zeros (w.shape[0], 1L, dtype = w.dtype, device = w.device) |], 1L))) }
            |> Method.beginning (begin' o)
            |> Method.ending (fun _ memory _ tasks -> accumulate memory tasks)

        { Spec.make defaults [ Opt.any threshold ] make with
            Rates = Spec.weighing }
