namespace Cmcl

/// A method with options of its own: their record, each option, and the method that they make. One value in the method's file.
type Spec<'o> =
    {
        /// Those that users may set, in the order of help and of records.
        Options: AnyOpt<'o> list
        /// Options of the same record that stand as they are here, for help.
        Fixed: AnyOpt<'o> list
        Defaults: 'o
        /// Learning rates that `cmcl tune` tries.
        Rates: string list
        /// Values that exclude each other.
        Refuses: 'o -> Fault list
        Make: 'o -> Method
    }

/// A method with values of its options, the type of their record hidden: what the registry lists, and what a plan has chosen.
type Entry =
    {
        /// As the values make it.
        Method: Method
        /// What it was made of, a `Spec` or a `Method`.
        Source: objnull
        /// The record of its options.
        Own: objnull
        /// What it takes beside the options of training.
        Options: OptionInfo list
        /// The value of each.
        Values: (string * string) list
        /// What stands as it is, with its value.
        Fixed: (string * string) list
        /// Options whose default stands over what a stream suggests for all methods.
        OwnDefaults: string list
        Rates: string list
        /// What of an option's conditions does not hold: other options, each with the values under which it would.
        Wanting: string -> (string * string list) list
        /// Values of it that exclude each other.
        Refuses: Fault list
        /// With another value of an option. Faults: those of the option, or `NotAnOption`.
        Read: string -> string -> Result<Entry, Fault list>
        /// Of a method that changes how another trains: the option that names that one, and its name.
        Host: (string * string) option
    }

/// Methods with their options, the types of their records hidden.
[<RequireQualifiedAccess>]
module Entry =
    /// The rates that `cmcl tune` tries unless a method says others.
    let internal usualRates: string list =
        match Settings.rate.Range with
        | TuneRange.Among values -> values
        | _ -> []

    /// A method without options of its own. Example: `Entry.ofMethod Plain.vanilla`.
    let ofMethod (m: Method) : Entry =
        { Method = m
          Source = m
          Own = null
          Options = []
          Values = []
          Fixed = []
          OwnDefaults = []
          Rates = usualRates
          Wanting = fun _ -> []
          Refuses = []
          Read = fun name _ -> Error [ Fault.NotAnOption(m.Name, name, []) ]
          Host = None }

    /// Everything that it takes, what others take too first.
    let takes (e: Entry) : OptionInfo list =
        let common =
            match e.Method.Learner with
            | Learner.Nothing -> []
            | Learner.Solve _ -> Settings.learning
            | Learner.Train _ -> Settings.options

        (common |> List.map _.Info) @ e.Options

    /// The record of its options, where it is of this type. Example: `Entry.own<NullSpaceOptions> (Spec.entry NullSpace.dns)`.
    let own<'o> (e: Entry) : 'o option =
        match e.Own with
        | :? 'o as own -> Some own
        | _ -> None

/// Methods with options of their own.
[<RequireQualifiedAccess>]
module Spec =
    /// Rates for methods that weigh old against new.
    let internal weighing: string list = [ "2e-4"; "5e-4"; "1e-3" ]

    /// Rates for methods that keep a step from what others need, which bear larger ones.
    let internal protecting: string list = [ "5e-4"; "1e-3"; "2e-3" ]

    /// Defaults, options, and the method that they make. Example:
    /// `Spec.make 0.1 [ Opt.any (Opt.make "strength" "how hard" Codec.notNegative id (fun v _ -> v)) ] (fun _ -> Plain.vanilla)`.
    let make (defaults: 'o) (options: AnyOpt<'o> list) (make: 'o -> Method) : Spec<'o> =
        { Options = options
          Fixed = []
          Defaults = defaults
          Rates = Entry.usualRates
          Refuses = fun _ -> []
          Make = make }

    let internal wanting (options: AnyOpt<'o> list) (o: 'o) (name: string) : (string * string list) list =
        [ for option in options do
              if option.Info.Name = name then
                  for c in option.Conditions do
                      if not (c.Holds o) then
                          c.Option, c.Values ]

    let internal ownDefaults (options: AnyOpt<'o> list) : string list =
        options |> List.filter _.OwnDefault |> List.map _.Info.Name

    /// With these values of its options.
    let rec at (spec: Spec<'o>) (o: 'o) : Entry =
        let m = spec.Make o

        let read name value =
            match spec.Options |> List.tryFind (fun option -> option.Info.Name = name) with
            | Some option -> option.Read value o |> Result.map (at spec)
            | None -> Error [ Fault.NotAnOption(m.Name, name, [ for option in spec.Options -> option.Info.Name ]) ]

        { Method = m
          Source = spec
          Own = box o
          Options = spec.Options |> List.map _.Info
          Values = [ for option in spec.Options -> option.Info.Name, option.Show o ]
          Fixed = [ for option in spec.Fixed -> option.Info.Name, option.Show o ]
          OwnDefaults = ownDefaults spec.Options
          Rates = spec.Rates
          Wanting = wanting spec.Options o
          Refuses = spec.Refuses o
          Read = read
          Host = None }

    /// With its defaults: its line in the registry. Example: `(Spec.entry Ewc.ewc).Method.Name = "ewc"`.
    let entry (spec: Spec<'o>) : Entry = at spec spec.Defaults

/// A method that changes how another trains: it takes its own options and those of its host.
type Wrapper<'w> =
    {
        Options: AnyOpt<'w> list
        /// The one of them that names the host.
        Host: Opt<'w, string>
        /// Why it cannot be put around a method that trains; none where it can.
        Unfit: Method -> string option
        Defaults: 'w
        Rates: string list
        Make: 'w -> Method -> Method
    }

[<RequireQualifiedAccess>]
module Wrapper =
    /// A host's `End` beside what the method around it keeps under a prefix, which the host never sees.
    let internal ending
        (prefix: string)
        (host: Trainer)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        : Memory =
        let struct (own, hosts) = Memory.split prefix memory
        host.End context hosts heads tasks |> Memory.join prefix own

    let rec private at (hosts: Entry list) (wrapper: Wrapper<'w>) (w: 'w) (host: Entry) : Entry =
        let m = wrapper.Make w host.Method
        let isOwn name = wrapper.Options |> List.exists (fun option -> option.Info.Name = name)

        let read name value =
            match wrapper.Options |> List.tryFind (fun option -> option.Info.Name = name) with
            | None -> host.Read name value |> Result.map (at hosts wrapper w)
            | Some option ->
                option.Read value w
                |> Result.bind (fun next ->
                    let named = wrapper.Host.Get next

                    // Of the same host the options that are set stay.
                    if named = wrapper.Host.Get w then
                        Ok(at hosts wrapper next host)
                    else
                        let fitting = hosts |> List.filter (fun h -> (wrapper.Unfit h.Method).IsNone) |> List.map _.Method.Name

                        match hosts |> List.tryFind (fun h -> h.Method.Name = named) with
                        | None -> Error [ Fault.Unknown($"host of {m.Name}", named, fitting) ]
                        | Some host ->
                            match wrapper.Unfit host.Method with
                            | None -> Ok(at hosts wrapper next host)
                            | Some why ->
                                let others = System.String.Join(", ", fitting)

                                Error
                                    [ Fault.Contradiction(
                                          $"{m.Name} cannot be put around {named}: {why}",
                                          $"take one of these: {others}"
                                      ) ])

        { Method = m
          Source = wrapper
          Own = box w
          Options = host.Options @ (wrapper.Options |> List.map _.Info)
          Values = host.Values @ [ for option in wrapper.Options -> option.Info.Name, option.Show w ]
          Fixed = host.Fixed
          OwnDefaults = host.OwnDefaults @ Spec.ownDefaults wrapper.Options
          Rates = wrapper.Rates
          Wanting = fun name -> if isOwn name then Spec.wanting wrapper.Options w name else host.Wanting name
          Refuses = host.Refuses
          Read = read
          Host = Some(wrapper.Host.Name, host.Method.Name) }

    /// Around its default host, one of these. Faults of naming another: `Unknown`, or `Contradiction` for one that does not fit.
    let entry (hosts: Entry list) (wrapper: Wrapper<'w>) : Entry =
        let named = wrapper.Host.Get wrapper.Defaults
        hosts |> List.find (fun h -> h.Method.Name = named) |> at hosts wrapper wrapper.Defaults
