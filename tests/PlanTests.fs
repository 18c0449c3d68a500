module Cmcl.Tests.PlanTests

open System
open System.Text.RegularExpressions
open Cmcl
open Expecto
open Cmcl.Tests.Checks

let private none: Preset = { Common = Map.empty; Methods = Map.empty; Run = [] }

let private plans preset given methods = Plan.resolve preset given methods
let private one preset given text = plans preset given [ text ] |> Check.get |> List.exactlyOne

/// What is refused, in one string.
let private refusal preset given methods = plans preset given methods |> faultsOf |> List.map _.Message |> String.concat " | "

/// A method as written, with an option set in its brackets, or left out.
let private change (text: string) (name: string, value: string option) : string =
    let method, options = Plan.parse text |> Check.get
    let others = options |> List.filter (fst >> (<>) name)
    let all = others @ [ for v in Option.toList value -> name, v ]
    let inside = String.Join(";", [ for name, value in all -> $"{name}={value}" ])
    if inside = "" then method else $"{method}[{inside}]"

/// Ways out that a sentence about a method offers: each a list of changes, an option with its value or left out.
let private ways (fault: Fault) : (string * string option) list list =
    match fault with
    | Fault.Contradiction(what, instead) ->
        [ if instead.StartsWith "leave it out" then
              [ (what.Split('\'')[1]), None ]
          for way in Regex.Split(instead, ", or set |, or |, | or ") do
              match [ for m in Regex.Matches(way, "([a-z-]+)=([a-z-]+)") -> m.Groups[1].Value, Some m.Groups[2].Value ] with
              | [] -> ()
              | changes -> changes ]
    | other -> failtest $"no advice: {other.Message}"

/// Follows advice, the first of each sentence, until the method is accepted; how many times.
let rec private followed (rounds: int) (text: string) : int =
    match plans { Common = Map.empty; Methods = Map.empty; Run = [] } [] [ text ] with
    | Ok _ -> rounds
    | Error _ when rounds > 6 -> failtest $"no end of advice: {text}"
    | Error faults -> followed (rounds + 1) (List.fold change text (ways faults.Head).Head)

/// An option with a value that it takes.
let private valued (e: Entry) (o: OptionInfo) : string * string =
    let training = [ for option in Settings.options -> option.Info.Name, option.Show Settings.initial ]
    o.Name, (if o.Name = "total-budget" then "0.2" else Map.find o.Name (Map(training @ e.Values)))

/// The first entry that takes an option of the registry, and what it is for training where that is one.
let private taker (name: string) : Entry =
    Registry.entries |> List.find (fun e -> Entry.takes e |> List.exists (fun o -> o.Name = name))

/// An entry and the settings of training, with an option read into them: what is shown of it then.
let private shown (name: string) (value: string) : Result<string, Fault list> =
    match Settings.options |> List.tryFind (fun o -> o.Info.Name = name) with
    | Some option -> option.Read value Settings.initial |> Result.map option.Show
    | None -> (taker name).Read name value |> Result.map (fun e -> Map.find name (Map e.Values))

let private contains (parts: string list) (message: string) =
    for part in parts do
        Expect.stringContains message part message

/// Values that each hyperparameter takes, as they are shown, and values that it refuses.
let private table =
    [ "lr", [ "0.001"; "0"; "1e-05" ], [ "-1"; "x"; ""; "nan"; "infinity"; "1,5" ]
      "epochs", [ "1"; "20" ], [ "0"; "-1"; "1.5"; " 3" ]
      "batch", [ "2"; "64"; "all" ], [ "1"; "0"; "half" ]
      "weight-decay", [ "0"; "0.001" ], [ "-0.1"; "none" ]
      "temperature", [ "0.07"; "1" ], [ "0"; "-1" ]
      "scores", [ "raw"; "cosine" ], [ "dot"; "Raw" ]
      "symmetric", [ "on"; "off" ], [ "true"; "1" ]
      "optimizer", [ "adamw"; "sgd" ], [ "adam" ]
      "decay", [ "linear"; "cosine"; "constant" ], [ "step" ]
      "clip", [ "1"; "0.5"; "off" ], [ "0"; "-1"; "none" ]
      "shuffle", [ "on"; "off" ], [ "yes" ]
      "dtype", [ "float32"; "float64" ], [ "float16" ]
      "features",
      [ "raw"; "relu:512"; "relu:64:0.5"; "cos:1"; "cos:9:2" ],
      [ "relu"; "relu:0"; "relu:70000"; "relu:5:-1"; "cos:5:0"; "tanh:5"; "relu:5:nan"; "relu:5:1:2"; "" ]
      "place", [ "gradient"; "update"; "eigenbasis" ], [ "weights" ]
      "sides", [ "dual"; "input" ], [ "output" ]
      "protect", [ "block"; "product"; "soft"; "trust"; "nothing" ], [ "hard" ]
      "exact", [ "on"; "off" ], [ "yes" ]
      "partner", [ "current"; "at-learning" ], [ "stale" ]
      "moments", [ "uncentred"; "centred" ], [ "mean"; "on" ]
      "free-basis", [ "own"; "shared" ], [ "mine" ]
      "threshold", [ "trace:0.003"; "rank:4" ], [ "0.003"; "trace:2" ]
      "partner-threshold", [ "absolute:0.01"; "energy:0.1" ], [ "all" ]
      "tau", [ "3e-05"; "1" ], [ "0"; "-1" ]
      "budget", [ "0.1"; "0" ], [ "-0.1"; "x" ]
      "total-budget", [ "0.2"; "off" ], [ "0"; "-0.1"; "none" ]
      "price", [ "200"; "off" ], [ "0"; "-1"; "none" ]
      "damping", [ "5"; "0.1" ], [ "0"; "-1" ]
      "rounds", [ "1"; "5" ], [ "0"; "1.5" ]
      "per-step", [ "2"; "256" ], [ "1"; "0"; "all" ]
      "margin", [ "0"; "0.5" ], [ "-1"; "x" ]
      "buffer", [ "2"; "512" ], [ "1"; "1.5" ]
      "alpha", [ "0"; "0.5" ], [ "-1"; "nan" ]
      "distill", [ "outputs"; "scores" ], [ "logits" ]
      "reduction", [ "mean"; "sum" ], [ "none" ]
      "beta", [ "0"; "1" ], [ "-0.5" ]
      "lambda", [ "0"; "10000" ], [ "-1"; "" ]
      "fisher", [ "per-anchor"; "per-batch"; "sampled" ], [ "true" ]
      "accumulate", [ "separate"; "online" ], [ "on" ]
      "gamma", [ "1"; "0.5" ], [ "0"; "1.1" ]
      "kappa", [ "0.2" ], [ "0"; "-1" ]
      "kappa-past", [ "0.01" ], [ "0"; "-1" ]
      "candidates", [ "matching"; "both"; "none" ], [ "all" ]
      "host", [ "vanilla"; "der" ], [ "" ]
      "rho", [ "0"; "0.2" ], [ "-1" ]
      "flatness", [ "0"; "0.2" ], [ "-1" ]
      "ratio", [ "0"; "1" ], [ "-1" ]
      "averages", [ "last-epoch"; "all-epochs" ], [ "last" ]
      "loss", [ "spectral"; "cumulant" ], [ "infonce" ]
      "ridge", [ "0.1"; "0" ], [ "-1"; "x" ]
      "exponent", [ "1"; "0.5" ], [ "-0.1" ]
      "rank", [ "all"; "8" ], [ "0"; "-1"; "some" ]
      "prior", [ "0"; "10" ], [ "-1" ]
      "unseen", [ "zero"; "composed" ], [ "none" ]
      "weights", [ "steps"; "rows" ], [ "pairs" ]
      "rule", [ "wise"; "ema"; "tasks"; "dual"; "regmean" ], [ "soup" ]
      "share", [ "0.5"; "0" ], [ "-1" ]
      "ema-decay", [ "0"; "0.9" ], [ "1"; "-0.1" ]
      "rotate", [ "inputs"; "both" ], [ "outputs" ] ]

let tests =
    testList
        "Plan"
        [ test "every hyperparameter is in the table above" (fun () ->
              Expect.equal (table |> List.map (fun (name, _, _) -> name)) Registry.optionNames "names")

          test "every hyperparameter reads what it shows and refuses the rest" (fun () ->
              for name, takes, refuses in table do
                  for value in takes do
                      Expect.equal (shown name value |> Check.get) value $"{name} {value}"
                      Expect.isOk (Registry.check name value) $"{name} {value}, whatever the method"

                  for value in refuses do
                      Expect.isError (shown name value) $"{name} {value}"

                      match Registry.check name value with
                      | Error [ Fault.BadValue _ ]
                      | Error [ Fault.NotOneOf _ ] -> ()
                      | other -> failtest $"{name} '{value}' gave {other}")

          test "a hyperparameter that there is not gets a suggestion" (fun () ->
              match Registry.check "treshold" "trace:0" with
              | Error [ fault ] -> contains [ "hyperparameter"; "treshold"; "did you mean 'threshold'" ] fault.Message
              | other -> failtest $"{other}")

          test "the initial settings are shown as they would be written" (fun () ->
              for o in Settings.options do
                  Expect.equal (o.Read (o.Show Settings.initial) Settings.initial |> Check.get) Settings.initial o.Info.Name

              for e in Registry.entries do
                  for name, value in e.Values do
                      let again = e.Read name value |> Check.get
                      Expect.equal again.Values e.Values $"{e.Method.Name}: {name}"
                      Expect.equal again.Own e.Own $"{e.Method.Name}: {name}, the record")

          test "each over those before: initial, common, method, stream's method, given, brackets" (fun () ->
              let rate preset given text = (one preset given text).Settings.LearningRate
              let common = { none with Common = Map [ "lr", "1" ] }

              let methods =
                  { common with
                      Methods = Map [ "vanilla", Map [ "lr", "2" ] ] }

              Expect.equal (rate none [] "vanilla") 1e-4 "initial"
              Expect.equal (rate common [] "vanilla") 1.0 "common"
              Expect.equal (rate methods [] "vanilla") 2.0 "the stream's for the method"
              Expect.equal (rate methods [] "joint") 1.0 "not for another method"
              Expect.equal (rate methods [ "lr", "3" ] "vanilla") 3.0 "given"
              Expect.equal (rate methods [ "lr", "3" ] "vanilla[lr=4]") 4.0 "brackets"

              let threshold preset given text = (one preset given text).Entry.Values |> Map |> Map.find "threshold"
              let common = { none with Common = Map [ "threshold", "rank:1" ] }
              Expect.equal (threshold common [] "reference") "absolute:0.01" "the method's own over the common"

              let methods =
                  { common with
                      Methods = Map [ "reference", Map [ "threshold", "rank:2" ] ] }

              Expect.equal (threshold methods [] "reference") "rank:2" "the stream's for the method over its own")

          test "what a preset says in vain is refused" (fun () ->
              let common = { none with Common = Map [ "treshold", "rank:1" ] }
              refusal common [] [ "vanilla" ] |> contains [ "preset"; "'treshold'" ]
              let unknown = { none with Methods = Map [ "vanila", Map.empty ] }
              refusal unknown [] [ "dns" ] |> contains [ "'vanila'"; "did you mean 'vanilla'" ]

              let foreign =
                  { none with
                      Methods = Map [ "vanilla", Map [ "tau", "1" ] ] }

              refusal foreign [] [ "dns" ] |> contains [ "preset: 'tau' is not an option of vanilla"; "Known: lr" ])

          test "what all methods share goes to those that take it" (fun () ->
              let common =
                  { none with
                      Common = Map [ "exact", "on"; "protect", "block" ] }

              Expect.isTrue (NullSpaceOptions.of' (one common [] "dns").Entry).Exact "dns"
              Expect.isFalse (NullSpaceOptions.of' (one common [] "dns-soft").Entry).Exact "not dns-soft"
              Expect.equal (NullSpaceOptions.of' (one common [] "dns-soft").Entry).Protect Protect.Soft "soft all the same")

          test "what does not train is measured like the others" (fun () ->
              let common =
                  { none with
                      Common = Map [ "temperature", "0.07"; "scores", "cosine"; "lr", "1" ] }

              let settings = (one common [ "symmetric", "on" ] "zero-shot").Settings

              Expect.equal
                  (Settings.contrast settings)
                  (Settings.contrast (one common [ "symmetric", "on" ] "vanilla").Settings)
                  "one loss"

              Expect.equal settings.Scoring Scoring.Cosine "the stream's"
              Expect.isTrue settings.Symmetric "the one given"
              Expect.equal settings.LearningRate Settings.initial.LearningRate "a rate means nothing to it")

          test "brackets: several options, spaces, commas between methods" (fun () ->
              let p = one none [] "dns[ lr = 1e-3 ; tau=1e-4;protect = product]"
              Expect.equal p.Settings.LearningRate 1e-3 "lr"
              Expect.equal (NullSpaceOptions.of' p.Entry).Tau 1e-4 "tau"
              Expect.equal p.Label "dns[lr=1e-3;tau=1e-4;protect=product]" "label"
              Expect.equal (one none [] "dns[lr=1,epochs=2]").Label "dns[lr=1;epochs=2]" "commas inside"
              Expect.equal (Plan.split "vanilla, dns[lr=1,tau=2] ,,joint") [ "vanilla"; "dns[lr=1,tau=2]"; "joint" ] "split"
              Expect.equal (one none [] "dns[]").Label "dns" "empty brackets")

          test "brackets that are none are refused" (fun () ->
              for text in [ "dns[lr]"; "dns[lr=1"; "dns[lr=1]x" ] do
                  match plans none [] [ text ] with
                  | Error [ Fault.BadValue(_, "NAME or NAME[OPTION=VALUE;OPTION=VALUE]", given) ] ->
                      Expect.equal given text "what came"
                  | other -> failtest $"{text}: {other}"

              for text in [ "dns]"; "[lr=1]"; "vanila"; "" ] do
                  match plans none [] [ text ] with
                  | Error [ Fault.Unknown("method", _, known) ] -> Expect.contains known "dns" "what there is"
                  | other -> failtest $"{text}: {other}")

          test "every fault is told, not only the first" (fun () ->
              Expect.hasLength (plans none [] [ "dns[lr=x;tau=-1]"; "vanila" ] |> faultsOf) 3 "three")

          test "an option that a method does not take is refused by name" (fun () ->
              refusal none [] [ "vanilla[tau=1]" ] |> contains [ "'tau' is not an option of vanilla"; "Known: lr" ]
              refusal none [] [ "zero-shot[lr=1]" ] |> contains [ "'lr' is not an option of zero-shot, which takes none" ]
              refusal none [] [ "dns-trust[moments=centred]" ] |> contains [ "'moments' is not an option of dns-trust" ]
              refusal none [] [ "dns-trust[protect=block]" ] |> contains [ "'protect' is not an option of dns-trust" ])

          test "an option that changes nothing is refused in a sentence" (fun () ->
              refusal none [] [ "dns[tau=1]" ] |> contains [ "'tau' changes nothing in dns[tau=1]" ]
              refusal none [] [ "dns[budget=1]" ] |> contains [ "'budget' changes nothing" ]
              refusal none [] [ "dns[protect=trust;threshold=rank:1]" ] |> contains [ "'threshold' changes nothing" ]
              refusal none [] [ "dns[protect=trust;budget=0.1;total-budget=0.2]" ] |> contains [ "'budget' changes nothing" ]
              refusal none [] [ "dns[total-budget=0.2]" ] |> contains [ "'total-budget' changes nothing" ]

              refusal none [] [ "dns[sides=input;partner-threshold=rank:1]" ]
              |> contains [ "'partner-threshold' changes nothing" ]

              refusal none [] [ "dns[sides=input;partner=current]" ] |> contains [ "'partner' changes nothing" ]
              refusal none [ "tau", "1" ] [ "vanilla"; "dns" ] |> contains [ "tau=1 changes nothing for vanilla, dns" ])

          test "an option given counts if one method uses it" (fun () ->
              let resolved = plans none [ "tau", "1" ] [ "vanilla"; "dns-soft" ] |> Check.get

              Expect.equal
                  (resolved |> List.map (fun p -> Map.tryFind "tau" (Map p.Entry.Values)))
                  [ None; Some "1" ]
                  "where it belongs")

          test "settings that exclude each other are refused with what would work" (fun () ->
              for text, parts in
                  [ "dns[place=gradient;protect=soft]", [ "needs the eigenbasis"; "use place=eigenbasis" ]
                    "dns[place=update;protect=trust]", [ "needs the eigenbasis" ]
                    "dns[exact=on;place=gradient]", [ "exact=on cannot hold with place=gradient" ]
                    "dns[exact=on;partner=at-learning]", [ "as they are now"; "partner=current" ]
                    "dns[exact=on;sides=input]", [ "exact already" ]
                    "dns[exact=on;moments=centred]", [ "leaves their mean out"; "moments=uncentred" ]
                    "dns[protect=trust;moments=centred]", [ "bounds the change of whole scores"; "moments=uncentred" ]
                    "dns[exact=on;protect=product]", [ "protected as a whole"; "protect=block" ]
                    "dns[exact=on;protect=soft]", [ "protected as a whole" ]
                    "dns[exact=on;protect=trust]", [ "protected as a whole" ]
                    "dns[exact=on;protect=nothing]", [ "protected as a whole" ] ] do
                  refusal none [] [ text ] |> contains parts)

          test "following the advice of any refusal makes the method accepted, whatever option is refused and why" (fun () ->
              let mutable refusals, offers = 0, 0

              let try' (text: string) =
                  match plans none [] [ text ] with
                  | Ok _ -> ()
                  | Error faults ->
                      refusals <- refusals + 1

                      for way in List.collect ways faults do
                          offers <- offers + 1
                          let next = List.fold change text way
                          Expect.notEqual next text "the advice changes something"
                          let rounds = followed 0 next

                          match faults with
                          | [ Fault.Contradiction(what, _) ] when what.Contains "changes nothing" ->
                              Expect.equal rounds 0 $"{text} was refused ({faults.Head.Message}), and so is {next}"
                          | _ -> ()

              let settings =
                  [ for place in [ "gradient"; "update"; "eigenbasis" ] do
                        for sides in [ "dual"; "input" ] do
                            for protect in [ "block"; "product"; "soft"; "trust"; "nothing" ] do
                                for rest in [ ""; ";exact=on"; ";moments=centred"; ";exact=on;partner=at-learning" ] do
                                    $"place={place};sides={sides};protect={protect}{rest}" ]

              let dns = Registry.find "dns" |> Check.get

              for given in settings do
                  try' $"dns[{given}]"

                  for o in Entry.takes dns do
                      if not (given.Contains $"{o.Name}=") then
                          let name, value = valued dns o
                          try' $"dns[{given};{name}={value}]"

              for e in Registry.entries do
                  let m, takes = e.Method, Entry.takes e

                  for o in takes do
                      let name, value = valued e o
                      try' $"{m.Name}[{name}={value}]"

                      for other in [ "sides=input"; "accumulate=online"; "total-budget=0.3" ] do
                          if List.contains (other.Split('=')[0]) [ for o in takes -> o.Name ] && other.Split('=')[0] <> name then
                              try' $"{m.Name}[{other};{name}={value}]"

              Expect.isGreaterThan refusals 500 "refusals"
              Expect.isGreaterThan offers refusals "more than one way out of some")

          test "an option for all that changes nothing is told with what would give it sense: settings, or a method" (fun () ->
              for o in Registry.options do
                  for m in Registry.entries |> List.map _.Method do
                      let name, value = valued (taker o.Name) o

                      match plans none [ name, value ] [ m.Name ] with
                      | Error [ Fault.Contradiction(_, instead) ] when instead.StartsWith "leave it out" ->
                          let settings =
                              [ for set in Regex.Split(instead, ", or set |, or ") do
                                    match [ for n, v in Mention.all set -> n, Option.get v ] with
                                    | [] -> ()
                                    | pairs -> pairs, [] ]

                          let methods =
                              match instead.Split ": " with
                              | [| _; names |] -> [ for name in names.Replace(" and others", "").Split ", " -> [], [ name ] ]
                              | _ -> []

                          let ways = settings @ methods

                          for settings, methods in ways do
                              Expect.isOk
                                  (plans none ((name, value) :: settings) (m.Name :: methods))
                                  $"{name}={value} for {m.Name}: {Mention.plain instead}"

                          Expect.isNonEmpty ways $"{name}={value} for {m.Name}"
                      | Ok _ -> ()
                      // Of what excludes itself the test above tells the ways out.
                      | Error [ Fault.Contradiction(_, instead) ] when instead.StartsWith "use" -> ()
                      | Error faults -> failtest $"{name}={value} for {m.Name}: {faults}")

          test "methods named twice, options named twice" (fun () ->
              refusal none [] [ "dns"; "dns" ] |> contains [ "'dns' is named twice" ]
              Expect.hasLength (plans none [] [ "dns"; "dns[lr=1]" ] |> Check.get) 2 "told apart in brackets"
              refusal none [] [ "dns[lr=1;lr=2]" ] |> contains [ "'lr' is given twice in dns[lr=1;lr=2]" ])

          test "what is recorded is what counts" (fun () ->
              let names text = Plan.effective (one none [] text) |> List.map fst
              Expect.contains (names "dns") "threshold" "block has a threshold"
              Expect.isFalse (List.contains "tau" (names "dns")) "and no τ"
              Expect.contains (names "dns-soft") "tau" "soft has a τ"
              Expect.isFalse (List.contains "threshold" (names "dns-soft")) "and no threshold"
              Expect.isEmpty (names "zero-shot") "no training, no settings"
              Expect.equal (Plan.effective (one none [] "vanilla[lr=1e-3]") |> List.head) ("lr", "0.001") "value")

          test "a batch that a step cannot fill is a fault, unless nothing trains or all rows do" (fun () ->
              let stream = synthetic.Value
              let faults text = Plan.check stream (plan stream text)

              match faults "vanilla[batch=1000]" with
              | [ Fault.BatchTooLarge(_, 1000, 420) ] -> ()
              | other -> failtest $"{other}"

              Expect.isEmpty (faults "vanilla[batch=420]") "just fits"
              Expect.isEmpty (faults "vanilla[batch=all]") "all"
              Expect.isEmpty (faults "zero-shot") "never trains")

          test "every method resolves as it stands, under a label of its own" (fun () ->
              let names = Registry.names
              Expect.equal (plans none [] names |> Check.get |> List.map _.Label) names "labels"
              Expect.equal (List.distinct names) names "distinct") ]
