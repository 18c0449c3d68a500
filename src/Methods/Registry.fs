namespace Cmcl

/// Every method by name: bounds, the paper's rivals in its order, null spaces and what is left of them, DNS, closed forms. A new one is one file and one line here.
[<RequireQualifiedAccess>]
module Registry =
    let private first: Entry list =
        [ Entry.ofMethod Plain.zeroShot
          Entry.ofMethod Plain.individual
          Entry.ofMethod Plain.joint
          Entry.ofMethod Plain.vanilla
          Spec.entry Gem.gem
          Spec.entry Der.der
          Spec.entry Der.derpp
          Spec.entry Ewc.ewc
          Spec.entry Co2l.co2l ]

    let private last: Entry list =
        [ Spec.entry Cila.cila
          Spec.entry MomentReplay.momentReplay
          Spec.entry NullSpace.nsp
          Spec.entry Reference.reference
          Spec.entry NullSpace.eigenbasisOnly
          Spec.entry NullSpace.dns
          Spec.entry NullSpace.soft
          Spec.entry NullSpace.trust
          Spec.entry DnsClosed.dnsClosed
          Spec.entry ClosedForm.cca ]

    /// Those that a method which changes how another trains can be put around.
    let hosts: Entry list = first @ last |> List.filter (fun e -> Method.trains e.Method)

    /// Those that change how another trains, but for `c-flat`, which the paper compares with.
    let private around: Entry list =
        [ Wrapper.entry hosts Merge.merge; Wrapper.entry hosts Polish.polish; Wrapper.entry hosts Eigen.eigen ]

    let entries: Entry list = first @ [ Wrapper.entry hosts CFlat.cFlat ] @ last @ around

    let names: string list = entries |> List.map _.Method.Name

    /// A method by its name, or the names that there are. Example: `Registry.find "ewc"`.
    let find (name: string) : Result<Entry, Fault list> =
        match entries |> List.tryFind (fun e -> e.Method.Name = name) with
        | Some e -> Ok e
        | None -> Error [ Fault.Unknown("method", name, names) ]

    /// Every option of these methods once, with all that take it: those of what this toolkit is about, then the others'.
    let owned (entries: Entry list) : (OptionInfo * string list) list =
        let about, others = entries |> List.partition (fun e -> e.Method.Role = Role.Subject)

        let all =
            [ for e in about @ others do
                  for o in e.Options -> o, e.Method.Name ]

        all |> List.groupBy (fun (o, _) -> o.Name) |> List.map (fun (_, same) -> fst same.Head, List.map snd same)

    /// The options of training, and every option of these methods, each once.
    let optionsOf (entries: Entry list) : OptionInfo list =
        (Settings.options |> List.map _.Info) @ (owned entries |> List.map fst)

    /// Every option that a method of the registry takes.
    let options: OptionInfo list = optionsOf entries

    let optionNames: string list = options |> List.map _.Name

    /// What is wrong with an option and its value as text, whatever the method. Faults: those of the option, or `Unknown`.
    /// Example: `Registry.check "tau" "3e-5"`.
    let check (name: string) (value: string) : Result<unit, Fault list> =
        match options |> List.tryFind (fun o -> o.Name = name) with
        | Some o -> o.Check value
        | None -> Error [ Fault.Unknown("hyperparameter", name, optionNames) ]
