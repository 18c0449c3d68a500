namespace Cmcl

open TorchSharp

/// C-Flat (Bian et al. 2024): a host's training, led to where its loss is flat. The published code takes four gradients of one batch,
/// with â = a/(‖a‖ + 1e-12) and norms over all gradients together:
///
///     g₀ = ∇L(W),  g₁ = ∇L(W + ρĝ₀),  e = ρ·unit(g₁ − g₀),  g₂ = ∇L(W + e),  g₃ = ∇L(W + e + ρĝ₂),  g = g₁ + λ(g₃ − g₂)
///
/// and gives g to the host's optimizer, a step from W. Here ∇L is the host's direction, whatever that is made of: all four have the
/// same batch, the same draws and the same of what the host keeps.
[<RequireQualifiedAccess>]
module CFlat =
    type Options = { Host: string; Rho: float; Flatness: float }

    /// Around fine-tuning, with the radius and the strength of the published code.
    let defaults: Options = { Host = "vanilla"; Rho = 0.2; Flatness = 0.2 }

    let host: Opt<Options, string> = Shared.host _.Host (fun v o -> { o with Host = v })

    let rho: Opt<Options, float> =
        Opt.make "rho" "radius of the perturbation" Codec.notNegative _.Rho (fun v o -> { o with Rho = v })
        |> Opt.tried [ "0.05"; "0.1"; "0.2"; "0.5" ]
        |> Opt.ownDefault

    let flatness: Opt<Options, float> =
        Opt.make "flatness" "strength of the first-order flatness (λ of C-Flat)" Codec.notNegative _.Flatness (fun v o ->
            { o with Flatness = v })
        |> Opt.ownDefault

    /// W + ρĝ: new weights for those that have a gradient.
    let private ascend (rho: float) (g: Heads) (weights: Heads) : Heads =
        let norm = (torch.stack [| for t in g.Values -> t.norm () |]).norm()
        let scale = (norm.plus 1e-12).reciprocal() * rho.AsScalar()
        Heads.replace (g |> Map.map (fun m t -> Heads.weight m weights .+ t * scale)) weights

    let private minus (a: Heads) (b: Heads) : Heads = a |> Map.map (fun m t -> t - Heads.weight m b)

    /// A host's direction made flat, of radius ρ (`rho`) and strength λ (`flatness`). The loss is the host's at W, and so is what is kept
    /// next. ρ = 0 is the host's direction itself; λ = 0 is SAM (Foret et al. 2021), of two gradients.
    let direction (rho: float) (flatness: float) (host: Direction) : Direction =
        let flat (kept: Memory) (weights: Heads) (batch: Batch) =
            let struct (first, next) = Direction.step host kept weights batch

            let gradients =
                Tensors.scopedWith (fun (h: Heads) -> h.Values) (fun () ->
                    let at weights = (Direction.pass host kept weights batch).Gradients
                    let g1 = at (ascend rho first.Gradients weights)

                    if flatness = 0.0 then
                        g1
                    else
                        let probe = ascend rho (minus g1 first.Gradients) weights
                        let g2 = at probe
                        let bend = minus (at (ascend rho g2 probe)) g2
                        g1 |> Map.map (fun m g -> g .+ Heads.weight m bend * flatness.AsScalar()))

            struct ({ first with Gradients = gradients }, next)

        if rho = 0.0 then host else Direction.Running flat

    /// Another method with its direction made flat; all else is the host's: how it begins and ends a step, its coordinates (those of the
    /// eigenbasis, say, in which the perturbation is a rotated one of the same size), its optimizer, its protection. Clipping comes after,
    /// in the host's rule; a host that clips before it projects (`reference`, DNS with `place=gradient`) clips each of the four.
    let around (o: Options) (host: Method) : Method =
        { host with
            Name = "c-flat"
            Role = Role.around host.Role
            Summary = "leads another method's training (host) to where its loss is flat, by four gradients an update" }
        |> Method.mapTrainer (fun trainer ->
            { trainer with
                Begin =
                    fun context memory heads tasks ->
                        let session = trainer.Begin context memory heads tasks

                        { session with
                            Direction = direction o.Rho o.Flatness session.Direction } })

    /// C-Flat around fine-tuning, or around the host that is named.
    let cFlat: Wrapper<Options> =
        { Options = [ Opt.any host; Opt.any rho; Opt.any flatness ]
          Host = host
          Unfit = fun _ -> None
          Defaults = defaults
          Rates = Spec.weighing
          Make = around }
