module Cmcl.Tests.OptionTests

open System
open System.IO
open System.Reflection
open System.Text.Json
open System.Text.RegularExpressions
open Cmcl
open Cmcl.Cli
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

// ---- a method that nobody knows, with three options ---------------------------------------------------------------

type private Pull = { Strength: float; Gently: bool; Softness: float }

let private strength: Opt<Pull, float> =
    Opt.make "strength" "how hard it pulls back" Codec.notNegative _.Strength (fun v o -> { o with Strength = v })
    |> Opt.tried [ "0.01"; "0.1"; "1" ]

let private gently: Opt<Pull, bool> =
    Opt.make "gently" "whether it lets go of far weights" Codec.switch _.Gently (fun v o -> { o with Gently = v })

let private softness: Opt<Pull, float> =
    Opt.make "softness" "how far that is" Codec.positive _.Softness (fun v o -> { o with Softness = v })
    |> Opt.onlyWith gently [ true ]
    |> Opt.triedWith strength

/// Adds strength · (W − W_start) to the gradient.
let private make (o: Pull) : Method =
    let begin' context memory heads tasks =
        let plain = Training.plainSession context memory heads tasks

        let pulled (weights: Heads) batch =
            let pass = Direction.pass plain.Direction plain.Kept weights batch
            let back m (g: torch.Tensor) = g .+ (weights[m] - plain.Start[m]) * o.Strength.AsScalar()

            { pass with Gradients = Map.map back pass.Gradients }

        { plain with Direction = Direction.Of pulled }

    { Plain.vanilla with Name = "pull" } |> Method.beginning begin'

let private pull: Spec<Pull> =
    Spec.make { Strength = 0.1; Gently = false; Softness = 2.0 } [ Opt.any strength; Opt.any gently; Opt.any softness ] make

let private entry = Spec.entry pull

let private none: Preset = { Common = Map.empty; Methods = Map.empty; Run = [] }

let private find name = if name = "pull" then Ok entry else Registry.find name

let private resolve preset given methods = Plan.resolveWith find preset given methods

let private own (p: Plan) : Pull = Entry.own<Pull> p.Entry |> Option.get

let private one preset given text = resolve preset given [ text ] |> Check.get |> List.exactlyOne

let private refusal preset given text = resolve preset given [ text ] |> faultsOf |> List.map _.Message |> String.concat " | "

let private declared =
    testList
        "from one declaration"
        [ test "in the string of a method, with what is wrong there" (fun () ->
              let p = one none [] "pull[strength=0.5;gently=on;softness=3;lr=1e-3]"

              Expect.equal (own p) { Strength = 0.5; Gently = true; Softness = 3.0 } "the record"

              Expect.equal p.Settings.LearningRate 1e-3 "training's beside it"
              Expect.stringContains (refusal none [] "pull[strenght=1]") "did you mean 'strength'" "a slip"
              Expect.stringContains (refusal none [] "pull[strength=-1]") "strength takes a number ≥ 0, not '-1'" "a value"

              Expect.stringContains
                  (refusal none [] "pull[softness=3]")
                  "'softness' changes nothing in pull[softness=3]; leave it out, or set gently=on"
                  "what it needs")

          test "in a stream's preset, for all methods and for this one" (fun () ->
              let common = { none with Common = Map [ "strength", "0.2" ] }
              Expect.equal (own (one common [] "pull")).Strength 0.2 "for all"

              let named =
                  { common with
                      Methods = Map [ "pull", Map [ "strength", "0.3" ] ] }

              Expect.equal (own (one named [] "pull")).Strength 0.3 "for this one"

              let kept =
                  Spec.entry
                      { pull with
                          Options = [ Opt.any (strength |> Opt.ownDefault) ] }

              let p = Plan.resolveWith (fun _ -> Ok kept) common [] [ "pull" ] |> Check.get |> List.exactlyOne
              Expect.equal (own p).Strength 0.1 "whose default stands over what is said for all"

              let wrong =
                  { none with
                      Methods = Map [ "pull", Map [ "strenght", "1" ] ] }

              Expect.stringContains (refusal wrong [] "pull") "the stream's preset: 'strenght' is not an option of pull" "a slip")

          test "given for all, as --set has it" (fun () ->
              Expect.equal (own (one none [ "strength", "0.4" ] "pull")).Strength 0.4 "set"
              Expect.stringContains (refusal none [ "softness", "3" ] "pull") "or set gently=on" "what it needs"
              Expect.stringContains (refusal none [ "strenght", "3" ] "pull") "did you mean 'strength'" "a slip")

          test "taken out of a command line, and in its help at 80 columns" (fun () ->
              let table = Registry.optionsOf (Registry.entries @ [ entry ])

              let taken =
                  OptionArguments.take
                      table
                      [ "run"; "--strength"; "0.5"; "--force"; "--gently"; "-m"; "pull"; "--no-shuffle"; "--softness"; "3" ]

              Expect.equal
                  taken.Options
                  [ "strength", "0.5"; "gently", "on"; "shuffle", "off"; "softness", "3" ]
                  "options with values"

              Expect.equal taken.Rest [ "run"; "--force"; "-m"; "pull" ] "the rest"
              Expect.isEmpty taken.Faults "faults"
              Expect.equal (own (one none taken.Options "pull")).Softness 3.0 "resolved"

              let lines = OptionArguments.help 80 (Registry.entries @ [ entry ])
              let text = String.Join("\n", lines)
              Expect.all lines (fun line -> line.Length <= 80) "no line is longer"

              for part in [ "--strength <VALUE>"; "--gently, --no-gently"; "how hard it pulls back: a number ≥ 0" ] do
                  Expect.stringContains text part "help")

          test "in the grid of tune" (fun () ->
              Expect.equal
                  (Grid.declared entry |> List.map (fun axis -> axis.Options, axis.Values.Length))
                  [ [ "lr" ], 12; [ "strength"; "softness" ], 3 ]
                  "axes")

          test "in what is recorded, in identities and in config.json" (fun () ->
              let p = one synthetic.Value.Preset [] "pull[strength=0.5]"
              let recorded = Map(Plan.effective p)
              Expect.equal (Map.tryFind "strength" recorded) (Some "0.5") "its value"
              Expect.isFalse (recorded.ContainsKey "softness") "which changes nothing"

              let protocol =
                  { Split = Split.Test
                    Device = torch.CPU
                    Threads = 1
                    Monitor = None }

              let identity (p: Plan) = Identity.of' protocol synthetic.Value p 0
              Expect.notEqual (identity p) (identity (one synthetic.Value.Preset [] "pull")) "another run"

              let request =
                  { Stream = synthetic.Value
                    Source = "synthetic"
                    Plans = [ p ]
                    Seeds = [ 0 ]
                    Device = torch.CPU
                    Split = Split.Test
                    SaveWeights = false
                    Monitor = None
                    Jobs = 1
                    Out = "out"
                    Command = "cmcl run"
                    Arguments = [] }

              use config = JsonDocument.Parse(Record.write DateTimeOffset.Now 0 [] request)
              let settings = config.RootElement.GetProperty("methods").[0].GetProperty "settings"
              Expect.equal (settings.GetProperty("strength").GetString()) "0.5" "config.json")

          test "at the desk, typed and as text, where it runs like any other" (fun () ->
              let configs = [ Config.ofSpec pull ] |> Config.over (Config.setTo strength) [ 0.0; 10.0 ]
              Expect.equal (configs |> List.map _.Label) [ "pull[strength=0]"; "pull[strength=10]" ] "a sweep"
              Expect.equal (Config.ofSpec pull |> Config.set "gently" "on").Label "pull[gently=on]" "as text"

              Expect.stringContains
                  (faultOf (fun () -> Config.ofSpec pull |> Config.set "strenght" "1")).Message
                  "strenght"
                  "a slip"

              Expect.isFalse (Config.isPossible (Config.ofSpec pull |> Config.set "softness" "1")) "which changes nothing"

              let result =
                  Run.on synthetic.Value
                  |> Run.methods (Config.any Baseline.vanilla :: configs)
                  |> Run.each (Learn.epochs 1)
                  |> Run.seeds [ 0 ]
                  |> Run.go

              let final label =
                  result.Rows
                  |> List.filter (fun r -> r.Method = label && r.Metric = "deviation_rel" && r.When = When.Final)
                  |> List.map _.Value

              let deviation label = final label |> List.exactlyOne
              Expect.equal (deviation "pull[strength=0]") (deviation "vanilla") "without strength it is fine-tuning"
              Expect.notEqual (deviation "pull[strength=10]") (deviation "vanilla") "with it another") ]

// ---- command lines ------------------------------------------------------------------------------------------------

let private lines =
    let take argv = OptionArguments.take Registry.options argv
    let message argv = (take argv).Faults |> List.map _.Message |> String.concat " | "

    testList
        "taking options"
        [ test "every option of the registry, with every word that it takes" (fun () ->
              for o in Registry.options do
                  for word in o.Words do
                      Expect.equal (take [ $"--{o.Name}"; word ]).Options [ o.Name, word ] $"--{o.Name} {word}"

                  if o.IsSwitch then
                      Expect.equal (take [ $"--{o.Name}"; "--force" ]).Options [ o.Name, "on" ] o.Name
                      Expect.equal (take [ $"--no-{o.Name}" ]).Options [ o.Name, "off" ] $"no {o.Name}")

          test "a value may begin with a sign; what is no value is refused" (fun () ->
              Expect.equal (take [ "--margin"; "-1" ]).Options [ "margin", "-1" ] "a number below zero"
              Expect.stringContains (message [ "run"; "--lr" ]) "nothing follows --lr; give it a number ≥ 0" "the end"
              Expect.stringContains (message [ "--lr"; "--epochs"; "3" ]) "--lr takes a number ≥ 0, not '--epochs'" "an option"
              Expect.stringContains (message [ "--lr"; "-q" ]) "not '-q'" "a short one"
              Expect.stringContains (message [ "--lr"; "1"; "--lr"; "2" ]) "--lr is given twice" "twice"
              Expect.stringContains (message [ "--exact"; "--no-exact" ]) "--exact is given twice" "both ways")

          test "no option has the name of an argument of a command that takes options" (fun () ->
              let names (cases: Argu.ArgumentCaseInfo list) = cases |> List.collect _.CommandLineNames.Value

              let arguments =
                  names (Argu.ArgumentParser.Create<Arguments.RunArgument>().GetArgumentCases())
                  @ names (Argu.ArgumentParser.Create<Arguments.CompareArgument>().GetArgumentCases())
                  @ names (Argu.ArgumentParser.Create<Arguments.TuneArgument>().GetArgumentCases())
                  @ names (Argu.ArgumentParser.Create<Arguments.VerifyArgument>().GetArgumentCases())

              Expect.isEmpty (Set.intersect (set arguments) (set (OptionArguments.names Registry.options))) "both") ]

// ---- the registry --------------------------------------------------------------------------------------------------

let private kebab (name: string) = Regex.Replace(name, "(?<=[a-z])[A-Z]", "-$0").ToLowerInvariant()

let private registry =
    testList
        "the registry"
        [ test "an option of one name is read alike by all methods that take it" (fun () ->
              let training = [ for o in Settings.options -> o.Info.Name ]

              for e in Registry.entries do
                  let names = e.Options |> List.map _.Name
                  Expect.equal (List.distinct names) names $"{e.Method.Name}: each once"
                  Expect.isEmpty (Set.intersect (set names) (set training)) $"{e.Method.Name}: none of training"
                  Expect.equal (e.Values |> List.map fst) names $"{e.Method.Name}: a value of each"

                  for o in e.Options do
                      let known = Registry.options |> List.find (fun k -> k.Name = o.Name)
                      Expect.equal (o.Takes, o.Help) (known.Takes, known.Help) $"{e.Method.Name}: {o.Name}")

          test "what an option needs is an option that its method takes, or holds" (fun () ->
              for e in Registry.entries do
                  for o in e.Options do
                      for other, values in e.Wanting o.Name do
                          Expect.isTrue
                              (e.Options |> List.exists (fun k -> k.Name = other))
                              $"{e.Method.Name}: {o.Name} needs {other}"

                          Expect.isNonEmpty values other)

          test "setters of Learn and Dns are the options of training and of dns" (fun () ->
              let setters (owner: string) =
                  (typeof<Study>.Assembly.GetType $"Cmcl.{owner}" |> Unchecked.nonNull)
                      .GetMethods(BindingFlags.Static ||| BindingFlags.Public)
                  |> Array.filter _.IsGenericMethodDefinition
                  |> Array.map (fun m -> kebab m.Name)
                  |> set

              let named names (o: OptionInfo) = Map.tryFind o.Name (Map names) |> Option.defaultValue o.Name
              let training = [ for o in Settings.options -> o.Info ]
              let dns = [ for o in NullSpaceOptions.all -> o.Info ]

              Expect.equal
                  (setters "Learn")
                  (set (
                      "whole-steps" :: List.map (named [ "lr", "rate"; "optimizer", "optimiser"; "decay", "schedule" ]) training
                  ))
                  "Learn"

              // The cut of partners' outputs is set with that of inputs.
              Expect.equal (setters "Dns") (set ("block" :: [ for o in dns -> o.Name ]) |> Set.remove "partner-threshold") "Dns")

          test "named arguments of C# are the options that a method takes" (fun () ->
              let makers =
                  typeof<CSharp.Methods>.GetMethods(BindingFlags.Static ||| BindingFlags.Public)
                  |> Array.filter (fun m -> not (List.contains m.Name [ "Named"; "Own" ]))

              Expect.isGreaterThan makers.Length 9 "methods"

              for m in makers do
                  let e = Registry.find (kebab m.Name) |> Check.get
                  let parameters = [ for p in m.GetParameters() -> kebab (string p.Name) ]
                  Expect.equal parameters (e.Options |> List.map _.Name) m.Name

              let learn = typeof<CSharp.Configuration>.GetMethod "Learn" |> Unchecked.nonNull

              let name (p: ParameterInfo) =
                  match kebab (string p.Name) with
                  | "rate" -> "lr"
                  | "optimiser" -> "optimizer"
                  | "schedule" -> "decay"
                  | "whole-steps" -> "batch"
                  | other -> other

              // What heads see is set by a method of its own, Lift.
              Expect.equal
                  (learn.GetParameters() |> Array.map name |> set)
                  (set [ for o in Settings.options -> o.Info.Name ] |> Set.remove Settings.features.Name)
                  "Learn") ]

let tests = testList "Options" [ declared; lines; registry ]
