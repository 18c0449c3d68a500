namespace Cmcl

/// Training that begins every step at the closed form's heads: is anything left for gradient descent?
[<RequireQualifiedAccess>]
module Polish =
    type Options =
        {
            Host: string
            /// Of the closed form.
            Closed: ClosedForm.Options
        }

    let defaults: Options = { Host = "vanilla"; Closed = ClosedForm.cca.Defaults }

    let host: Opt<Options, string> = Shared.host _.Host (fun v o -> { o with Host = v })

    /// An option of the closed form as one of this; `cmcl tune` leaves it as it is, since `cca` tells what is good for it.
    let private closed (option: Opt<ClosedForm.Options, 'v>) : AnyOpt<Options> =
        { option with Range = TuneRange.Stays }
        |> Opt.within (fun (o: Options) -> o.Closed) (fun c o -> { o with Closed = c })
        |> Opt.any

    /// What this keeps in a memory, out of the host's sight: the moments of all steps.
    let private prefix = "polish/"

    /// Another method that begins a step at the heads of `cca` for all steps up to this one, of every modality that was seen, instead of
    /// where its last step ended. Their outputs have the energy of features, as those of the heads before any step have, so the host's
    /// temperature suits them.
    let around (o: Options) (host: Method) : Method =
        let begin' (trainer: Trainer) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
            let struct (own, hosts) = Memory.split prefix memory
            let all = ClosedForm.seen o.Closed.Weights own tasks

            let struct (solved, remarks) =
                ClosedForm.headsOf o.Closed.Cca context.Settings.Features context.Initial heads all |> Check.getAll

            let session = trainer.Begin context hosts solved tasks

            { session with
                Finish =
                    fun trained ->
                        let finished = session.Finish trained

                        { finished with
                            Kept = Memory.join prefix (JointMoments.toNamed all) finished.Kept }
                Remarks = remarks @ session.Remarks }

        { host with
            Name = "polish"
            Role = Role.around host.Role
            Promise = Promise.Nothing
            Summary = "another method's training (host), begun at every step at the closed form's heads" }
        |> Method.mapTrainer (fun trainer ->
            { Begin = begin' trainer
              End = Wrapper.ending prefix trainer })

    /// Fine-tuning, or the host that is named, from canonical correlations.
    let polish: Wrapper<Options> =
        { Options =
            [ Opt.any host
              closed ClosedForm.ridge
              closed ClosedForm.exponent
              closed ClosedForm.rank
              closed ClosedForm.prior
              closed ClosedForm.unseen
              closed ClosedForm.weights ]
          Host = host
          Unfit =
            fun host ->
                if host.Role = Role.Restart then
                    Some "it starts again at every step, wherever it is told to begin"
                else
                    None
          Defaults = defaults
          Rates = Entry.usualRates
          Make = around }
