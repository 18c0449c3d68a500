namespace Cmcl

open TorchSharp

/// Gradient episodic memory (Lopez-Paz and Ranzato 2017, arXiv 1706.08840). `per-step` pairs of every step are kept; with g the batch's
/// gradient and g_k the InfoNCE gradient of all kept pairs of step k in one batch, both at the weights of now,
///
///     g̃ = g where all ⟨g, g_k⟩ ≥ 0,   else g̃ = g + Gᵀv,   v = argmin over v ≥ γ of ½ vᵀ(GGᵀ + E)v + (Gg)ᵀv
///
/// row k of G being g_k: the g̃ closest to g that to first order raises no old loss. As the published *code* does it (and Mammoth's and
/// Avalanche's), γ (`margin`) is a lower bound of v; the *paper* adds γ to the solution. That code has E = 1e-3 I; here E = ε diag(GGᵀ), so
/// that neither the scale of the losses nor the length of one g_k beside another's matters: what is left of a violation is a share ε.
///
/// Gradients are over all heads, zero where one is absent, and only what the update can change counts: the batch's two heads. So an
/// old step constrains where it shares a modality with the batch, and otherwise costs nothing. A head of its pair that the step does not
/// train is taken as it is.
[<RequireQualifiedAccess>]
module Gem =
    type Options = { PerStep: int; Margin: float; Place: Place }

    /// Published: γ 0.5, 256 samples a task, the gradient projected.
    let defaults: Options = { PerStep = 256; Margin = 0.5; Place = Place.Gradient }

    let perStep: Opt<Options, int> =
        Opt.make "per-step" "pairs that are kept of each step" (Codec.whole 2) _.PerStep (fun v o -> { o with PerStep = v })

    let margin: Opt<Options, float> =
        Opt.make
            "margin"
            "least weight of every old gradient once one is violated (memory strength γ)"
            Codec.notNegative
            _.Margin
            (fun v o -> { o with Margin = v })
        |> Opt.tried [ "0"; "0.1"; "0.5"; "1" ]

    let place: Opt<Options, Place> =
        Shared.place (fun (o: Options) -> o.Place) (fun v o -> { o with Place = v }) |> Opt.ownDefault

    /// Gradients of a batch, end to end in the order of the given heads, zeros for those that are absent.
    let private flat (like: Heads) (g: Heads) : torch.Tensor =
        torch.cat
            [| for KeyValue(m, w) in like -> (Map.tryFind m g |> Option.defaultWith (fun () -> torch.zeros_like w)).reshape -1L |]

    let private numbers (t: torch.Tensor) : float[] = t.``to``(torch.float64).cpu().contiguous().data<float>().ToArray()

    /// g̃ for g, and old gradients that may lack heads of g's; none where g violates nothing. Homogeneous: with every gradient times s it is
    /// s g̃, with `margin` and g times s too. `share`, ε above, is what is left of a violation.
    let project (share: float) (margin: float) (old: Heads list) (g: Heads) : Heads option =
        if old.IsEmpty then
            None
        else
            Tensors.scopedWith (Option.toList >> Seq.collect Heads.tensors) (fun () ->
                let rows = torch.stack [| for k in old -> flat g k |]
                let along = numbers (rows.mv (flat g g))

                if not (Array.exists (fun x -> x < 0.0) along) then
                    None
                else
                    let products = numbers (rows.mm (rows.t ()))
                    let count = old.Length

                    let h = Array2D.init count count (fun i j -> products[i * count + j] * (if i = j then 1.0 + share else 1.0))

                    let v = torch.tensor (Nonnegative.minimise h along margin, dtype = rows.dtype, device = rows.device)
                    let change = rows.t().mv v
                    let firsts = g.Values |> Seq.scan (fun first w -> first + w.NumberOfElements) 0L

                    Some(
                        Map
                            [ for KeyValue(m, w), first in Seq.zip g firsts ->
                                  m, w .+ change.narrow(0L, first, w.NumberOfElements).reshape w.shape ]
                    ))

    /// What is left of a violation: in the gradient as in published code; in the update next to nothing.
    let private shareOfGradient, shareOfUpdate = 1e-3, 1e-6

    /// The kept groups that constrain a change of these heads.
    let private sharing (groups: Group list) (changed: Heads) : Group list =
        groups |> List.filter (fun g -> Pair.members g.Pair |> List.exists changed.ContainsKey)

    /// A change with ⟨change, g_k⟩ ≥ 0 for those groups, g_k being their gradients at these heads, where the given one has not.
    let private against
        (contrast: Contrast)
        (share: float)
        (margin: float)
        (groups: Group list)
        (heads: Heads)
        (change: Heads)
        : Heads option =
        Tensors.scopedWith (Option.toList >> Seq.collect Heads.tensors) (fun () ->
            let old =
                [ for group in sharing groups change ->
                      (Replay.pass change.ContainsKey heads (Contrastive.gradients contrast) group).Gradients ]

            project share margin old change)

    let private begin' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        let contrast = Settings.contrast context.Settings
        let plain = Training.plainSession context memory heads tasks
        let groups = sharing (Buffer.ofMemory memory).Groups plain.Start

        let against share margin weights = against contrast share margin groups (Heads.replace weights heads)
        let replayed (pass: Pass) = RunningSum.count "replayed" (sharing groups pass.Gradients |> List.sumBy _.Count)

        match o.Place with
        | Place.Update ->
            let recipe = Training.recipe context Map.empty
            let opposite (h: Heads) = Heads.map (fun (t: torch.Tensor) -> t.neg ()) h

            // Under plain gradient descent u = −ηg, so that with ηγ for a margin both places are the same.
            let project: Transform =
                { Init = fun _ -> TransformState.empty
                  Update =
                    fun state updates weights ->
                        let projected =
                            against shareOfUpdate (o.Margin * recipe.Rate state.Step) weights (opposite updates)
                            |> Option.map opposite
                            |> Option.defaultValue updates

                        struct (projected, { state with Step = state.Step + 1L }) }

            { plain with
                Direction =
                    Direction.Running(fun kept weights batch ->
                        let struct (pass, kept) = Direction.step plain.Direction kept weights batch
                        struct (pass, replayed pass kept))
                Rule =
                    if groups.IsEmpty then
                        plain.Rule
                    else
                        Rule.Chain(Transform.chain [ Rule.transform plain.Start plain.Rule; project ]) }
        | Place.Gradient
        | Place.Eigenbasis ->
            { plain with
                Direction =
                    Direction.Running(fun kept weights batch ->
                        let struct (pass, kept) = Direction.step plain.Direction kept weights batch
                        let projected = against shareOfGradient o.Margin weights pass.Gradients

                        struct ({ pass with
                                    Gradients = Option.defaultValue pass.Gradients projected },
                                kept
                                |> replayed pass
                                |> RunningSum.count "updates" 1L
                                |> RunningSum.count "projected" (if projected.IsSome then 1L else 0L))) }

    let private end' (o: Options) (context: Context) (memory: Memory) (_: Heads) (tasks: Task list) : Memory =
        let keep buffer (task: Task) =
            Buffer.keep (int64 o.PerStep) (Seed.split $"kept of step {task.Index}" context.Seed) (Buffer.ofTask task) buffer
            |> Buffer.fetched task

        Buffer.toMemory (List.fold keep (Buffer.ofMemory memory) tasks) memory

    let private diagnostics (memory: Memory) : (string * float) list =
        [ match RunningSum.sum "replayed" memory with
          | Some pairs -> "replayed", pairs
          | None -> ()
          match RunningSum.sum "projected" memory, RunningSum.sum "updates" memory with
          | Some projected, Some updates -> "violated", projected / updates
          | _ -> () ]

    let private contradictions (o: Options) : Fault list =
        [ if o.Place = Place.Eigenbasis then
              Fault.Contradiction(
                  $"""gem projects along old gradients, for which there is no {Mention.setting "place" "eigenbasis"}""",
                  $"""use {Mention.setting "place" "gradient"} or {Mention.setting "place" "update"}"""
              ) ]

    /// GEM with all its options. Published: γ 0.5, 256 samples a task. `place=gradient` gives g̃ to the optimizer, which clips and bends it, as
    /// published; with `place=update` the update u that the optimizer made, decay included, is projected so that ⟨u, g_k⟩ ≤ 0, γ counting
    /// times the learning rate. It tells how many kept pairs it went through, and, of the gradient, in what share of the updates it
    /// projected (`violated`).
    let gem: Spec<Options> =
        let make o =
            { Training.method
                  "gem"
                  "gradient episodic memory: no update that raises the loss of kept pairs of old steps, to first order" with
                Diagnostics = diagnostics }
            |> Method.beginning (begin' o)
            |> Method.ending (end' o)

        { Spec.make defaults [ Opt.any perStep; Opt.any margin; Opt.any place ] make with
            Rates = Spec.weighing
            Refuses = contradictions }
