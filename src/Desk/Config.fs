namespace Cmcl

open System

// What a method takes, as types: an option that a method does not take does not compile. Nothing implements these.

/// A method that trains: the options of `Learn`.
type ITrains = interface end

/// A null-space method with a history of old data: `Dns.sides`, `Dns.partner`.
type ISided =
    inherit ITrains

/// A method whose scale is τ: `Dns.tau`.
type ITau =
    inherit ITrains

/// A method with a stability budget: `Dns.budget`, `Dns.totalBudget`.
type IBudget =
    inherit ITrains

/// A method with a cut of the input spectrum: `Dns.threshold`.
type ICut =
    inherit ITrains

/// A method that protects what it is told to: `Dns.place`, `Dns.protect`, `Dns.exact`, `Dns.freeBasis`.
type IProtects =
    inherit ISided

/// `dns-soft`.
type IDnsSoft =
    inherit ISided
    inherit ITau

/// `dns-trust`.
type IDnsTrust =
    inherit ISided
    inherit IBudget

/// A method that does not train: no options.
type INothing = interface end

/// A method whose name is only known as text: every option compiles, and one that it does not take is refused when the study begins.
type IAny =
    inherit IProtects
    inherit ITau
    inherit IBudget
    inherit ICut

/// A method with what is set of its options; all else comes from the stream's preset and from defaults. A value: setting an option
/// gives another one. `'takes` says which options there are. Made by `Dns.defaults`, `Baseline.vanilla`, `Config.named`, …
[<StructuredFormatDisplay("{Label}")>]
type Config<'takes> =
    internal
        {
            Name: string
            /// The method itself, where it is not one of the registry.
            Own: Method option
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

    /// Sets an option by its name, as text (`cmcl methods NAME` lists them). Faults: `Unknown`, with the name that was likely meant, or
    /// `BadValue`, as a `CmclException`. Example: `Config.named "gem" |> Config.set "margin" "0.2"`.
    let set (name: string) (value: string) (config: Config<'takes>) : Config<'takes> =
        Field.read name value Settings.initial |> Check.get |> ignore

        let before, after =
            match List.tryFindIndex (fst >> (=) name) config.Options with
            | Some i -> List.take i config.Options, List.skip (i + 1) config.Options
            | None -> config.Options, []

        { config with Options = before @ [ name, value ] @ after }

    /// Sets an option by what it makes of settings.
    let internal change (name: string) (by: Settings -> Settings) (config: Config<'takes>) : Config<'takes> =
        let field = Field.all |> List.find (fun f -> f.Name = name)
        set name (field.Show(by Settings.initial)) config

    /// The same configuration where methods of different kinds stand in one list.
    /// Example: `[ Config.any Baseline.vanilla; Config.any Dns.defaults ]`.
    let any (config: Config<'takes>) : Config<IAny> =
        { Name = config.Name
          Own = config.Own
          Options = config.Options }

    /// A method as the command line writes it. Faults as of `set`, or `Unknown` for a method that there is not.
    /// Example: `Config.named "dns[place=update;exact=on]"`.
    let named (text: string) : Config<IAny> =
        let name, options = Plan.parse text |> Check.get
        Registry.find name |> Check.get |> ignore
        ((ofName name: Config<IAny>), options) ||> List.fold (fun config (name, value) -> set name value config)

    /// A method of one's own, which need not be in the registry. Fault: `Contradiction` for the name of one that is.
    /// Example: `Config.ofMethod { Plain.vanilla with Name = "mine" }`.
    let ofMethod (m: Method) : Config<IAny> =
        if Registry.methods |> List.exists (fun known -> known.Name = m.Name && not (obj.ReferenceEquals(known, m))) then
            Check.fail (Fault.Contradiction($"there is a method '{m.Name}' already", "give yours another Name"))

        { ofName m.Name with Own = Some m }

    /// Every configuration with every value of an option: called again and again it makes the product of a sweep.
    /// Example: `[ Dns.defaults ] |> Config.over Dns.sides [ Sides.Dual; Sides.Input ] |> Config.over Dns.exact [ false; true ]`.
    let over
        (set: 'value -> Config<'takes> -> Config<'takes>)
        (values: 'value list)
        (configs: Config<'takes> list)
        : Config<'takes> list =
        [ for config in configs do
              for value in values -> set value config ]

    let internal find (own: Method option) (name: string) : Result<Method, Fault list> =
        match own with
        | Some m when m.Name = name -> Ok m
        | _ -> Registry.find name

    /// Whether the method takes these settings together: a product has some that exclude each other (`Plan.resolve` says why).
    /// Example: `[ Dns.defaults ] |> Config.over Dns.exact [ false; true ] |> List.filter Config.isPossible`.
    let isPossible (config: Config<'takes>) : bool =
        let preset = { Common = Map.empty; Methods = Map.empty; Run = [] }
        Plan.resolveWith (find config.Own) preset [] [ config.Label ] |> Result.isOk
