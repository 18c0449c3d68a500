namespace Cmcl

/// Training in the eigenbasis of all data seen so far, this step's among them, with nothing protected: what the basis does to AdamW, which
/// is not invariant under rotations (theory.md, section 7).
[<RequireQualifiedAccess>]
module Eigen =
    type Options =
        {
            Host: string
            /// `Sides.Input` rotates inputs, `Sides.Dual` outputs, too.
            Rotated: Sides
        }

    /// Inputs alone, around fine-tuning.
    let defaults: Options = { Host = "vanilla"; Rotated = Sides.Input }

    /// Methods that train plainly, and keep nothing in the coordinates of weights.
    let private hosts = [ "vanilla"; "joint"; "individual" ]

    let host: Opt<Options, string> = Shared.host _.Host (fun v o -> { o with Host = v })

    let rotate: Opt<Options, Sides> =
        Opt.make
            "rotate"
            "what is rotated into the eigenbasis of data: inputs, or outputs of a head as well, by its partners' outputs (both)"
            (Codec.choice [ "inputs", Sides.Input; "both", Sides.Dual ])
            _.Rotated
            (fun v o -> { o with Rotated = v })
        |> Opt.tried [ "inputs"; "both" ]

    /// What this keeps in a memory, out of the host's sight: second moments, as DNS keeps them.
    let private prefix = "eigen/"

    /// A plain method in the frames of DNS, whose history has this step's data already, without a mask.
    let around (o: Options) (host: Method) : Method =
        let frames =
            { NullSpaceOptions.defaults with
                Protect = Protect.Nothing
                Sides = o.Rotated }

        let begin' (trainer: Trainer) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
            let struct (own, hosts) = Memory.split prefix memory
            let plain = trainer.Begin context hosts heads tasks
            let history = History.add frames.Partner frames.Centring heads tasks own
            let session = NullSpaceStep.begin' frames context history (Heads.replace plain.Start heads) tasks

            let finish trained =
                let left = session.Finish trained

                let finished =
                    plain.Finish
                        { left with
                            Weights = Training.select (Training.moving tasks) left.Weights }

                { finished with
                    Kept = Memory.join prefix history finished.Kept }

            { session with Kept = plain.Kept; Finish = finish }

        { host with
            Name = "eigen"
            Role = Role.around host.Role
            Summary = "plain training (host) in the eigenbasis of all data so far: what the basis does to AdamW" }
        |> Method.mapTrainer (fun trainer ->
            { Begin = begin' trainer
              End = Wrapper.ending prefix trainer })

    /// Around fine-tuning, or around the host that is named.
    let eigen: Wrapper<Options> =
        { Options = [ Opt.any host; Opt.any rotate ]
          Host = host
          Unfit =
            fun host ->
                if List.contains host.Name hosts then
                    None
                else
                    Some "it keeps or projects in the coordinates of weights, which would turn from step to step"
          Defaults = defaults
          Rates = Entry.usualRates
          Make = around }
