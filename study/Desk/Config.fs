namespace Cmcl

open System

// What a method takes, as types: an option that a method does not take does not compile, and the compiler says that
// `OnlyTrainingOptions` is not compatible with `TakesExact`. Nothing implements these.

/// `Learn.features`: a method that learns.
type TakesFeatures = interface end

/// A method that trains: the options of `Learn`.
type TakesTrainingOptions =
    inherit TakesFeatures

/// `Dns.place`: a null-space method that can project in several places.
type TakesPlace =
    inherit TakesTrainingOptions

/// `Dns.sides`.
type TakesSides =
    inherit TakesTrainingOptions

/// `Dns.protect`, `Dns.block`: a method that protects what it is told to.
type TakesProtection =
    inherit TakesTrainingOptions

/// `Dns.exact`.
type TakesExact =
    inherit TakesTrainingOptions

/// `Dns.partner`: a method with a history of old partner outputs.
type TakesPartner =
    inherit TakesTrainingOptions

/// `Dns.moments`.
type TakesMoments =
    inherit TakesTrainingOptions

/// `Dns.freeBasis`.
type TakesFreeBasis =
    inherit TakesTrainingOptions

/// `Dns.threshold`: a method with a cut of the input spectrum.
type TakesThreshold =
    inherit TakesTrainingOptions

/// `Dns.tau`: a method whose scale is τ.
type TakesTau =
    inherit TakesTrainingOptions

/// `Dns.budget`, `Dns.totalBudget`: a method with a stability budget.
type TakesBudget =
    inherit TakesTrainingOptions

/// A method that learns nothing.
type NoOptions = interface end

/// A method that is solved: `Learn.features`, and others by `Config.setTo` or `Config.set`.
type SolvedOptions =
    inherit TakesFeatures

/// A method with the options of `Learn`, and others by `Config.setTo` or `Config.set` at most.
type OnlyTrainingOptions =
    inherit TakesTrainingOptions

/// What `dns` takes. Numbers of its protection are set with it: `Dns.protect (Protection.Soft 3e-5)`.
type DnsOptions =
    inherit TakesPlace
    inherit TakesSides
    inherit TakesProtection
    inherit TakesExact
    inherit TakesPartner
    inherit TakesMoments
    inherit TakesFreeBasis

/// What `dns-soft` takes.
type DnsSoftOptions =
    inherit TakesSides
    inherit TakesPartner
    inherit TakesMoments
    inherit TakesTau

/// What `dns-trust` takes.
type DnsTrustOptions =
    inherit TakesSides
    inherit TakesPartner
    inherit TakesBudget

/// What `eigenbasis-only` takes.
type EigenbasisOptions =
    inherit TakesPartner
    inherit TakesMoments

/// What the one-sided methods take, `nsp` and `reference`.
type OneSidedOptions =
    inherit TakesThreshold

/// A method whose name is only known as text: every option compiles, and one that it does not take is refused when the study begins.
type AnyOptions =
    inherit DnsOptions
    inherit DnsSoftOptions
    inherit DnsTrustOptions
    inherit OneSidedOptions

/// A method with what is set of its options; all else comes from the stream's preset and from defaults. A value: setting an option
/// gives another one. `'takes` says which options there are. Made by `Dns.defaults`, `Baseline.vanilla`, `Config.named`, …
[<StructuredFormatDisplay("{Label}")>]
type Config<'takes> =
    internal
        {
            Name: string
            /// The method itself, where it is not one of the registry.
            Own: Entry option
            /// Each option once.
            Options: (string * string) list
        }

    /// As results call it: `dns[place=update]`.
    member c.Label: string =
        if c.Options.IsEmpty then
            c.Name
        else
            c.Name + "[" + String.Join(";", c.Options |> List.map (fun (name, value) -> $"{name}={value}")) + "]"

    override c.ToString() = c.Label

/// Methods with options as values, and products of them for sweeps.
[<RequireQualifiedAccess>]
module Config =
    let internal ofName (name: string) : Config<'takes> = { Name = name; Own = None; Options = [] }

    /// As results call it. Example: `Config.label (Config.named "dns[exact=on]") = "dns[exact=on]"`.
    let label (config: Config<'takes>) : string = config.Label

    let private put (name: string) (value: string) (config: Config<'takes>) : Config<'takes> =
        let before, after =
            match List.tryFindIndex (fst >> (=) name) config.Options with
            | Some i -> List.take i config.Options, List.skip (i + 1) config.Options
            | None -> config.Options, []

        { config with Options = before @ [ name, value ] @ after }

    /// Sets an option by its name, as text (`cmcl methods NAME` lists them). Faults: `Unknown`, with the name that was likely meant, or
    /// `BadValue`, as a `CmclException`. Example: `Config.named "gem" |> Config.set "margin" "0.2"`.
    let set (name: string) (value: string) (config: Config<'takes>) : Config<'takes> =
        let own = config.Own |> Option.bind (fun e -> e.Options |> List.tryFind (fun o -> o.Name = name))

        match own with
        | Some option -> option.Check value |> Check.get
        | None -> Registry.check name value |> Check.get

        put name value config

    /// Sets an option by its declaration: the typed form of `set`. An option that the method does not take compiles, and is refused when the
    /// study begins. Fault: `BadValue` as a `CmclException`.
    /// Example: `Config.named "ewc" |> Config.setTo Ewc.lambda 30.0`.
    let setTo (option: Opt<'o, 'value>) (value: 'value) (config: Config<'takes>) : Config<'takes> =
        let text = option.Codec.Show value
        option.Codec.Read option.Name text |> Check.get |> ignore
        put option.Name text config

    /// The same configuration where methods of different kinds stand in one list.
    /// Example: `[ Config.any Baseline.vanilla; Config.any Dns.defaults ]`.
    let any (config: Config<'takes>) : Config<AnyOptions> =
        { Name = config.Name
          Own = config.Own
          Options = config.Options }

    /// A method as the command line writes it. Faults as of `set`, or `Unknown` for a method that there is not.
    /// Example: `Config.named "dns[place=update;exact=on]"`.
    let named (text: string) : Config<AnyOptions> =
        let name, options = Plan.parse text |> Check.get
        Registry.find name |> Check.get |> ignore
        ((ofName name: Config<AnyOptions>), options) ||> List.fold (fun config (name, value) -> set name value config)

    let private ofEntry (entry: Entry) : Config<AnyOptions> =
        let name = entry.Method.Name
        let training = [ for o in Settings.options -> o.Info.Name ]

        for o in entry.Options do
            if List.contains o.Name training then
                Check.fail (Fault.Contradiction($"'{o.Name}' is an option of training already", "give yours another Name"))

        match Registry.find name with
        | Ok known when obj.ReferenceEquals(known.Source, entry.Source) -> ofName name
        | Ok _ -> Check.fail (Fault.Contradiction($"there is a method '{name}' already", "give yours another Name"))
        | Error _ -> { ofName name with Own = Some entry }

    /// A method of one's own, which need not be in the registry. Fault: `Contradiction` for the name of one that is.
    /// Example: `Config.ofMethod { Plain.vanilla with Name = "mine" }`.
    let ofMethod (m: Method) : Config<AnyOptions> = ofEntry (Entry.ofMethod m)

    /// A method of one's own with options of its own, which need not be in the registry; they are set by `set` and `setTo`, in brackets and by a
    /// stream's preset. Faults: `Contradiction` for the name of a method of the registry, or an option with the name of one of training.
    /// Example: `Config.ofSpec Ewc.ewc |> Config.setTo Ewc.lambda 30.0`.
    let ofSpec (spec: Spec<'o>) : Config<AnyOptions> = ofEntry (Spec.entry spec)

    /// Every configuration with every value of an option: called again and again it makes the product of a sweep.
    /// Example: `[ Dns.defaults ] |> Config.over Dns.sides [ Sides.Dual; Sides.Input ] |> Config.over Dns.exact [ false; true ]`.
    let over
        (set: 'value -> Config<'takes> -> Config<'takes>)
        (values: 'value list)
        (configs: Config<'takes> list)
        : Config<'takes> list =
        [ for config in configs do
              for value in values -> set value config ]

    let internal find (own: Entry option) (name: string) : Result<Entry, Fault list> =
        match own with
        | Some e when e.Method.Name = name -> Ok e
        | _ -> Registry.find name

    /// Whether the method takes these settings together: a product has some that exclude each other (`Plan.resolve` says why).
    /// Example: `[ Dns.defaults ] |> Config.over Dns.exact [ false; true ] |> List.filter Config.isPossible`.
    let isPossible (config: Config<'takes>) : bool =
        let preset = { Common = Map.empty; Methods = Map.empty; Run = [] }
        Plan.resolveWith (find config.Own) preset [] [ config.Label ] |> Result.isOk
