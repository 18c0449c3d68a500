namespace Cmcl

open System

/// One method with all its settings, as a run will use it.
type Plan =
    {
        /// What results call it.
        Label: string
        /// As the entry's options make it.
        Method: Method
        /// How it trains and is measured.
        Settings: Settings
        /// The options of its own.
        Entry: Entry
    }

/// From what users write to plans: defaults, then the stream's preset, the method's own, the stream's for that method, the
/// options given, and what stands in brackets after the method's name, each over those before.
[<RequireQualifiedAccess>]
module Plan =
    /// The name and the options of a method as written: `dns[place=update]`. Fault: `BadValue`.
    let parse (text: string) : Result<string * (string * string) list, Fault list> =
        Written.parse text |> Result.map (fun w -> w.Name, w.Options)

    /// Splits at commas outside brackets. Example: `Plan.split "vanilla,dns[lr=1e-3,tau=1]"`.
    let split (text: string) : string list = Written.split text

    /// How a run trains, and the method with its own options: what options are applied to.
    type private State = Settings * Entry

    let private ofTraining (name: string) : AnyOpt<Settings> option =
        Settings.options |> List.tryFind (fun o -> o.Info.Name = name)

    let private applyOne ((settings, entry): State) (name: string, value: string) : Result<State, Fault list> =
        match ofTraining name with
        | Some option -> option.Read value settings |> Result.map (fun settings -> settings, entry)
        | None -> entry.Read name value |> Result.map (fun entry -> settings, entry)

    /// Every option in turn, and all that is wrong with any.
    let private apply (options: (string * string) list) (state: State) : Result<State, Fault list> =
        let folder (state, faults) option =
            match applyOne state option with
            | Ok next -> next, faults
            | Error more -> state, faults @ more

        match List.fold folder (state, []) options with
        | state, [] -> Ok state
        | _, faults -> Error faults

    let private names (options: OptionInfo list) : string list = options |> List.map _.Name

    let private entryTakes (e: Entry) (name: string) : bool = List.contains name (names (Entry.takes e))

    /// Whether it is an option of the plan's method, of its own or of training.
    /// As in `Plan.resolve stream.Preset [] [ "ewc" ] |> Check.get |> List.forall (fun plan -> Plan.takes plan "lambda")`.
    let takes (p: Plan) (name: string) : bool = entryTakes p.Entry name

    /// Whether an option of the plan changes anything beside the others; `tau` under `protect=block` does not.
    let matters (p: Plan) (name: string) : bool = (p.Entry.Wanting name).IsEmpty

    let private foreign (e: Entry) (name: string) : Fault = Fault.NotAnOption(e.Method.Name, name, names (Entry.takes e))

    /// Options as whoever reads the sentence wrote them in brackets.
    let private inBrackets (name: string) (value: string option) : string =
        value |> Option.map (fun v -> $"{name}={v}") |> Option.defaultValue name

    /// The settings, each a way of its own, under which an option of the method would change something: those that can be had together with all
    /// that is set already, and leave the options named beside it their sense.
    let private remedies (entry: Entry) (beside: string list) (name: string) : (string * string) list list =
        let combine (other, values) (rest: (string * string) list list) =
            [ for value in values do
                  for pairs in rest -> (other, value) :: pairs ]

        let possible (pairs: (string * string) list) =
            List.forall (fst >> entryTakes entry) pairs
            && match apply pairs (Settings.initial, entry) with
               | Ok(_, changed) ->
                   changed.Refuses.IsEmpty && name :: beside |> List.forall (fun option -> (changed.Wanting option).IsEmpty)
               | Error _ -> false

        List.foldBack combine (entry.Wanting name) [ [] ] |> List.filter possible

    let private orSet (ways: (string * string) list list) : string =
        let way pairs = String.Join(" and ", [ for name, value in pairs -> Mention.setting name value ])
        if ways.IsEmpty then "" else ", or set " + String.Join(", or ", List.map way ways)

    /// The options that a plan really uses, those of training first, for records.
    let effective (plan: Plan) : (string * string) list =
        [ for o in Settings.options do
              if takes plan o.Info.Name then
                  o.Info.Name, o.Show plan.Settings ]
        @ (plan.Entry.Values |> List.filter (fst >> matters plan))

    /// A method without options of its own, under a plan's settings.
    /// As in `Plan.resolve stream.Preset [] [ "vanilla" ] |> Check.get |> List.map (Plan.withMethod mine)`.
    let withMethod (m: Method) (plan: Plan) : Plan =
        { plan with
            Label = m.Name
            Method = m
            Entry = Entry.ofMethod m }

    /// What the stream's preset says for a method.
    let private ofStream (preset: Preset) (method: string) : (string * string) list =
        preset.Methods |> Map.tryFind method |> Option.defaultValue Map.empty |> Map.toList

    /// The method that is meant, with its defaults; one that changes how another trains, around its host.
    let private meant
        (find: string -> Result<Entry, Fault list>)
        (preset: Preset)
        (given: (string * string) list)
        (w: Written)
        : Result<Entry, Fault list> =
        find w.Name
        |> Result.bind (fun entry ->
            let named option = ofStream preset w.Name @ given @ w.Options |> List.filter (fst >> (=) option) |> List.tryLast

            match entry.Host |> Option.bind (fst >> named) with
            | Some(option, host) -> entry.Read option host
            | None -> Ok entry)

    let private one
        (find: string -> Result<Entry, Fault list>)
        (preset: Preset)
        (given: (string * string) list)
        (text: string)
        : Result<Plan, Fault list> =
        match Written.parse text with
        | Error f -> Error f
        | Ok written ->
            match meant find preset given written with
            | Error f -> Error f
            | Ok entry ->
                let own = List.filter (fun (name, _) -> entryTakes entry name || Settings.measures name)
                // The entry is around its host already: naming another on the way to it would lose what is set of it.
                let apply = List.filter (fun (name, _) -> Some name <> Option.map fst entry.Host) >> apply
                let shared = Map.toList preset.Common |> List.filter (fun (name, _) -> not (List.contains name entry.OwnDefaults))
                let ofHost = entry.Host |> Option.map (snd >> ofStream preset) |> Option.defaultValue []
                let strange = written.Options |> List.filter (fun (name, _) -> not (entryTakes entry name))

                // An option in brackets is told of as it stands there; what would have to be set beside it, likewise.
                let told (fault: Fault) =
                    fault.WithOptions(fun name value ->
                        let inside = List.exists (fst >> (=) name) written.Options
                        let outside = List.exists (fst >> (=) name) given

                        if inside || not (outside || written.Options.IsEmpty) then
                            inBrackets name value
                        else
                            value |> Option.map (Mention.setting name) |> Option.defaultValue (Mention.option name))

                if not strange.IsEmpty then
                    Error [ for name, _ in strange -> foreign entry name ]
                else
                    (Settings.initial, entry)
                    |> apply (own shared)
                    |> Result.bind (apply (ofHost @ ofStream preset written.Name))
                    |> Result.bind (apply (own given))
                    |> Result.bind (apply written.Options)
                    |> Result.bind (fun (settings, entry) ->
                        let idle = written.Options |> List.filter (fun (name, _) -> not (entry.Wanting name).IsEmpty)
                        let repeated = written.Options |> List.countBy fst |> List.filter (fun (_, n) -> n > 1)

                        match
                            entry.Refuses
                            @ [ for name, _ in idle ->
                                    Fault.Contradiction(
                                        $"'{name}' changes nothing in {written.Label}",
                                        "leave it out" + orSet (remedies entry (List.map fst written.Options) name)
                                    )
                                for name, _ in repeated ->
                                    Fault.Contradiction($"'{name}' is given twice in {written.Label}", "give each option once") ]
                        with
                        | [] ->
                            Ok
                                { Label = written.Label
                                  Method = entry.Method
                                  Settings = settings
                                  Entry = entry }
                        | faults -> Error faults)
                    |> Result.mapError (List.map told)

    /// What a stream's preset says that nothing takes: an unknown hyperparameter, an unknown method, another method's option.
    let private presetFaults (find: string -> Result<Entry, Fault list>) (known: string list) (preset: Preset) : Fault list =
        [ for name in preset.Common.Keys do
              if not (List.contains name known) then
                  Fault.Unknown("hyperparameter in the stream's preset", name, known)
          for KeyValue(method, options) in preset.Methods do
              match meant find preset [] { Name = method; Options = [] } with
              | Error faults -> yield! faults
              | Ok entry ->
                  for name in options.Keys do
                      if not (entryTakes entry name) then
                          Fault.At("the stream's preset", foreign entry name) ]

    /// How an option that is set for all could come to matter: by what has to be set beside it, else by a method that takes it.
    let private useful (plans: Plan list) (name: string, value: string) : string =
        let taking = plans |> List.filter (fun p -> takes p name)
        let ways = taking |> List.collect (fun p -> remedies p.Entry [] name) |> List.distinct

        let takers =
            [ for entry in Registry.entries do
                  match applyOne (Settings.initial, entry) (name, value) with
                  | Ok(_, changed) when entryTakes entry name && changed.Refuses.IsEmpty ->
                      match remedies changed [] name with
                      | [] :: _ -> entry.Method.Name
                      | way :: _ -> ({ Name = entry.Method.Name; Options = way }: Written).Label
                      | [] -> ()
                  | _ -> () ]

        match ways, takers with
        | [], [] -> ""
        | [], takers ->
            let others = if takers.Length > 4 then " and others" else ""
            let some = String.Join(", ", List.truncate 4 takers)
            $", or add a method that takes it: {some}{others}"
        | ways, _ -> orSet ways

    /// The names of all options: those of the registry, and those of the methods as written, which need not be in it.
    let private knownTo (find: string -> Result<Entry, Fault list>) (methods: string list) : string list =
        let own =
            [ for text in methods do
                  match Written.parse text |> Result.bind (fun w -> find w.Name) with
                  | Ok entry -> yield! names entry.Options
                  | Error _ -> () ]

        Registry.optionNames @ own |> List.distinct

    /// `resolve`, with methods found by the given function.
    let resolveWith
        (find: string -> Result<Entry, Fault list>)
        (preset: Preset)
        (given: (string * string) list)
        (methods: string list)
        : Result<Plan list, Fault list> =
        let known = knownTo find methods

        let wrong =
            [ for name, times in List.countBy fst given do
                  if times > 1 then
                      Fault.Contradiction($"'{name}' is given twice", "give each option once")

                  if not (List.contains name known) then
                      Fault.Unknown("hyperparameter", name, known) ]

        match presetFaults find known preset @ wrong, methods |> List.map (one find preset given) |> Check.all with
        | [], Error faults -> Error(List.distinct faults)
        | (_ :: _ as faults), _ -> Error faults
        | [], Ok plans ->
            let idle =
                [ for name, value in given do
                      let taken = Settings.measures name || plans |> List.exists (fun p -> takes p name && matters p name)

                      if not taken then
                          let names = String.Join(", ", plans |> List.map _.Label)

                          Fault.Contradiction(
                              $"{Mention.setting name value} changes nothing for {names}",
                              "leave it out" + useful plans (name, value)
                          ) ]

            let repeated =
                plans
                |> List.countBy _.Label
                |> List.filter (fun (_, n) -> n > 1)
                |> List.map (fun (name, _) ->
                    Fault.Contradiction($"'{name}' is named twice", "name each method once, or tell them apart in brackets"))

            match idle @ repeated with
            | [] -> Ok plans
            | faults -> Error faults

    /// Plans for the methods as written, the options given applying to every method that takes them; each must matter to one.
    let resolve (preset: Preset) (given: (string * string) list) (methods: string list) : Result<Plan list, Fault list> =
        resolveWith Registry.find preset given methods

    /// Faults of a plan on a stream: a batch that its smallest step cannot fill, where the method trains.
    let check (stream: Stream) (plan: Plan) : Fault list =
        match plan.Method.Learner, plan.Settings.Batch with
        | Learner.Train _, BatchSize.Rows n ->
            let smallest = stream.Steps |> List.minBy Stream.visits
            let rows = int (Stream.visits smallest)

            if n > rows then [ Fault.BatchTooLarge(smallest.Name, n, rows) ] else []
        | _ -> []
