namespace Cmcl

open System

/// One method with all its settings, as a run will use it. The label is what results call it.
type Plan = { Label: string; Method: Method; Settings: Settings }

/// From what users write to plans: defaults, then the stream's preset, the method's own, the stream's for that method, the
/// options given, and what stands in brackets after the method's name, each over those before.
[<RequireQualifiedAccess>]
module Plan =
    /// A method as written: `dns` or `dns[protect=product;tau=3e-5]`.
    type private Written = { Name: string; Options: (string * string) list }

    let private form = "NAME or NAME[OPTION=VALUE;OPTION=VALUE]"

    let private parseOne (text: string) : Result<Written, Fault list> =
        let bad = Error [ Fault.BadValue(Mention.option "methods", form, text) ]

        match text.IndexOf '[' with
        | -1 -> Ok { Name = text; Options = [] }
        | i when text.EndsWith ']' ->
            let inside = text.Substring(i + 1, text.Length - i - 2)
            let parts = inside.Split([| ';'; ',' |], StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
            let pairs = parts |> Array.map (fun p -> p.Split('=', 2)) |> List.ofArray

            if pairs |> List.forall (fun p -> p.Length = 2) then
                Ok
                    { Name = text.Substring(0, i)
                      Options = pairs |> List.map (fun p -> p[0].Trim(), p[1].Trim()) }
            else
                bad
        | _ -> bad

    /// The name and the options of a method as written: `dns[place=update]`. Fault: `BadValue`.
    let parse (text: string) : Result<string * (string * string) list, Fault list> =
        parseOne text |> Result.map (fun w -> w.Name, w.Options)

    /// Splits at commas outside brackets. Example: `"vanilla,dns[lr=1e-3,tau=1]"` has two.
    let split (text: string) : string list =
        let folder (depth, current, parts) (c: char) =
            match c with
            | ',' when depth = 0 -> depth, "", current :: parts
            | '[' -> depth + 1, current + string c, parts
            | ']' -> depth - 1, current + string c, parts
            | _ -> depth, current + string c, parts

        let _, last, parts = Seq.fold folder (0, "", []) text
        List.rev (last :: parts) |> List.map _.Trim() |> List.filter ((<>) "")

    let private label (w: Written) =
        if w.Options.IsEmpty then
            w.Name
        else
            w.Name + "[" + String.Join(";", w.Options |> List.map (fun (k, v) -> $"{k}={v}")) + "]"

    let private apply (options: (string * string) list) (settings: Settings) : Result<Settings, Fault list> =
        let folder (settings, faults) (name, value) =
            match Field.read name value settings with
            | Ok s -> s, faults
            | Error f -> settings, faults @ f

        match List.fold folder (settings, []) options with
        | s, [] -> Ok s
        | _, faults -> Error faults

    /// Whether a method takes an option. Example: `Plan.takes Plain.vanilla "lr"`.
    let takes (m: Method) (name: string) : bool = m.Fields |> List.exists (fun f -> f.Name = name)

    let private foreign (m: Method) (name: string) : Fault = Fault.NotAnOption(m.Name, name, Field.names m.Fields)

    /// Options as whoever reads the sentence wrote them in brackets.
    let private inBrackets (name: string) (value: string option) : string =
        value |> Option.map (fun v -> $"{name}={v}") |> Option.defaultValue name

    /// The settings, each a way of its own, under which an option of the method would change something: those that can be had together with all
    /// that is set already, and leave the options named beside it their sense.
    let private remedies (m: Method) (settings: Settings) (beside: string list) (name: string) : (string * string) list list =
        let combine (other, values) (rest: (string * string) list list) =
            [ for value in values do
                  for pairs in rest -> (other, value) :: pairs ]

        let possible (pairs: (string * string) list) =
            List.forall (fst >> takes m) pairs
            && match apply pairs settings with
               | Ok changed -> (m.Refuses changed).IsEmpty && List.forall (Field.matters changed) (name :: beside)
               | Error _ -> false

        List.foldBack combine (Field.wanting settings name) [ [] ] |> List.filter possible

    let private orSet (ways: (string * string) list list) : string =
        let way pairs = String.Join(" and ", [ for name, value in pairs -> Mention.setting name value ])
        if ways.IsEmpty then "" else ", or set " + String.Join(", or ", List.map way ways)

    /// The hyperparameters that a plan really uses, for records.
    let effective (plan: Plan) : (string * string) list =
        [ for f in plan.Method.Fields do
              if Field.matters plan.Settings f.Name then
                  f.Name, f.Show plan.Settings ]

    /// What the stream's preset says for a method.
    let private ofStream (preset: Preset) (method: string) : (string * string) list =
        preset.Methods |> Map.tryFind method |> Option.defaultValue Map.empty |> Map.toList

    /// The method that is meant; one that changes how another trains, around its host, whose name comes with it.
    let private meant
        (find: string -> Result<Method, Fault list>)
        (preset: Preset)
        (given: (string * string) list)
        (w: Written)
        : Result<Method * string option, Fault list> =
        find w.Name
        |> Result.bind (fun m ->
            match m.Around with
            | None -> Ok(m, None)
            | Some around ->
                let hosts = Registry.hosts |> List.map _.Name

                let named =
                    ofStream preset m.Name @ given @ w.Options
                    |> List.filter (fst >> (=) "host")
                    |> List.tryLast
                    |> Option.map snd
                    |> Option.defaultValue Settings.initial.Host

                match Registry.hosts |> List.tryFind (fun h -> h.Name = named) with
                | Some host -> Ok(around host, Some host.Name)
                | None -> Error [ Fault.Unknown($"host of {m.Name}", named, hosts) ])

    let private one
        (find: string -> Result<Method, Fault list>)
        (preset: Preset)
        (given: (string * string) list)
        (text: string)
        : Result<Plan, Fault list> =
        match parseOne text with
        | Error f -> Error f
        | Ok written ->
            match meant find preset given written with
            | Error f -> Error f
            | Ok(m, host) ->
                let own = List.filter (fun (name, _) -> takes m name || Field.measures name)

                let ofMethod = (host |> Option.map (ofStream preset) |> Option.defaultValue []) @ ofStream preset m.Name
                let strange = written.Options |> List.filter (fun (name, _) -> not (takes m name))

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
                    Error [ for name, _ in strange -> foreign m name ]
                else
                    Settings.initial
                    |> apply (own (Map.toList preset.Common))
                    |> Result.bind (apply m.Presets)
                    |> Result.bind (apply ofMethod)
                    |> Result.bind (apply (own given))
                    |> Result.bind (apply written.Options)
                    |> Result.bind (fun settings ->
                        let idle = written.Options |> List.filter (fun (name, _) -> not (Field.matters settings name))
                        let repeated = written.Options |> List.countBy fst |> List.filter (fun (_, n) -> n > 1)

                        match
                            m.Refuses settings
                            @ [ for name, _ in idle ->
                                    Fault.Contradiction(
                                        $"'{name}' changes nothing in {label written}",
                                        "leave it out" + orSet (remedies m settings (List.map fst written.Options) name)
                                    )
                                for name, _ in repeated ->
                                    Fault.Contradiction($"'{name}' is given twice in {label written}", "give each option once") ]
                        with
                        | [] -> Ok { Label = label written; Method = m; Settings = settings }
                        | faults -> Error faults)
                    |> Result.mapError (List.map told)

    /// What a stream's preset says that nothing takes: an unknown hyperparameter, an unknown method, another method's option.
    let private presetFaults (preset: Preset) : Fault list =
        [ for name in preset.Common.Keys do
              if not (List.contains name (Field.names Field.all)) then
                  Fault.Unknown("hyperparameter in the stream's preset", name, Field.names Field.all)
          for KeyValue(method, options) in preset.Methods do
              match meant Registry.find preset [] { Name = method; Options = [] } with
              | Error faults -> yield! faults
              | Ok(m, _) ->
                  for name in options.Keys do
                      if not (takes m name) then
                          Fault.At("the stream's preset", foreign m name) ]

    /// How an option that is set for all could come to matter: by what has to be set beside it, else by a method that takes it.
    let private useful (plans: Plan list) (name: string, value: string) : string =
        let taking = plans |> List.filter (fun p -> takes p.Method name)
        let ways = taking |> List.collect (fun p -> remedies p.Method p.Settings [] name) |> List.distinct

        let takers =
            [ for m in Registry.methods do
                  match apply (m.Presets @ [ name, value ]) Settings.initial with
                  | Ok settings when takes m name && (m.Refuses settings).IsEmpty ->
                      match remedies m settings [] name with
                      | [] :: _ -> m.Name
                      | way :: _ -> label { Name = m.Name; Options = way }
                      | [] -> ()
                  | _ -> () ]

        match ways, takers with
        | [], [] -> ""
        | [], takers ->
            let others = if takers.Length > 4 then " and others" else ""
            let some = String.Join(", ", List.truncate 4 takers)
            $", or add a method that takes it: {some}{others}"
        | ways, _ -> orSet ways

    /// `resolve`, with methods found by the given function.
    let resolveWith
        (find: string -> Result<Method, Fault list>)
        (preset: Preset)
        (given: (string * string) list)
        (methods: string list)
        : Result<Plan list, Fault list> =
        let wrong =
            [ for name, times in List.countBy fst given do
                  if times > 1 then
                      Fault.Contradiction($"'{name}' is given twice", "give each option once")

                  if not (List.contains name (Field.names Field.all)) then
                      Fault.Unknown("hyperparameter", name, Field.names Field.all) ]

        match presetFaults preset @ wrong, methods |> List.map (one find preset given) |> Check.all with
        | [], Error faults -> Error(List.distinct faults)
        | (_ :: _ as faults), _ -> Error faults
        | [], Ok plans ->
            let idle =
                [ for name, value in given do
                      let taken =
                          Field.measures name
                          || plans |> List.exists (fun p -> takes p.Method name && Field.matters p.Settings name)

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

    /// Faults of a plan on a stream: a batch that its smallest step cannot fill.
    let check (stream: Stream) (plan: Plan) : Fault list =
        match plan.Method.Curriculum, plan.Settings.Batch with
        | Curriculum.Never, _
        | _, BatchSize.All -> []
        | _, BatchSize.Rows n ->
            let smallest = stream.Steps |> List.minBy Stream.visits
            let rows = int (Stream.visits smallest)

            if n > rows then [ Fault.BatchTooLarge(smallest.Name, n, rows) ] else []
