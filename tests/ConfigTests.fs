module Cmcl.Tests.ConfigTests

open System
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes

/// What a configuration trains with, and what its method is made of.
let private settingsOf (config: Config<'takes>) : Settings * NullSpaceOptions =
    let p = plan synthetic.Value config.Label
    p.Settings, NullSpaceOptions.of' p.Entry

/// Every option that has a function: what it should make of settings.
let private typed: (string * Config<AnyOptions> * (Settings * NullSpaceOptions -> Settings * NullSpaceOptions)) list =
    let learns (change: Settings -> Settings) (s, o) = change s, o
    let protects (change: NullSpaceOptions -> NullSpaceOptions) (s, o) = s, change o
    let dns set = Config.any (set Dns.defaults)
    let soft set = Config.any (set Dns.soft)
    let trust set = Config.any (set Dns.trust)
    let cut = Threshold.energy 0.01 |> Check.get

    [ "rate", dns (Learn.rate 0.25), learns (fun s -> { s with LearningRate = 0.25 })
      "epochs", dns (Learn.epochs 7), learns (fun s -> { s with Epochs = 7 })
      "batch", dns (Learn.batch 5), learns (fun s -> { s with Batch = BatchSize.Rows 5 })
      "wholeSteps", dns Learn.wholeSteps, learns (fun s -> { s with Batch = BatchSize.All })
      "temperature", dns (Learn.temperature 0.5), learns (fun s -> { s with Temperature = 0.5 })
      "scores", dns (Learn.scores Scoring.Cosine), learns (fun s -> { s with Scoring = Scoring.Cosine })
      "symmetric", dns (Learn.symmetric true), learns (fun s -> { s with Symmetric = true })
      "optimiser", dns (Learn.optimiser Optimiser.Sgd), learns (fun s -> { s with Optimiser = Optimiser.Sgd })
      "weightDecay", dns (Learn.weightDecay 0.5), learns (fun s -> { s with WeightDecay = 0.5 })
      "schedule", dns (Learn.schedule Schedule.Cosine), learns (fun s -> { s with Decay = Schedule.Cosine })
      "clip", dns (Learn.clip (Some 2.0)), learns (fun s -> { s with Clip = Some 2.0 })
      "no clip", dns (Learn.clip None), learns (fun s -> { s with Clip = None })
      "features", dns (Learn.features (Some(Lift.cos 3))), learns (fun s -> { s with Features = Some(Lift.cos 3) })
      "dtype", dns (Learn.dtype Dtype.Float64), learns (fun s -> { s with Dtype = Dtype.Float64 })
      "place", dns (Dns.place Place.Update), protects (fun s -> { s with Place = Place.Update })
      "sides", dns (Dns.sides Sides.Input), protects (fun s -> { s with Sides = Sides.Input })
      "exact", dns (Dns.exact true), protects (fun s -> { s with Exact = true })
      "partner", dns (Dns.partner PartnerOutputs.AtLearning), protects (fun s -> { s with Partner = PartnerOutputs.AtLearning })
      "freeBasis", dns (Dns.freeBasis FreeBasis.Own), protects (fun s -> { s with FreeBasis = FreeBasis.Own })
      "nothing", dns (Dns.protect Protection.Nothing), protects (fun s -> { s with Protect = Protect.Nothing })
      "product",
      dns (Dns.protect (Protection.Product 0.125)),
      protects (fun s -> { s with Protect = Protect.Product; Tau = 0.125 })
      "soft", dns (Dns.protect (Protection.Soft 0.125)), protects (fun s -> { s with Protect = Protect.Soft; Tau = 0.125 })
      "trust", dns (Dns.protect (Protection.Trust 0.3)), protects (fun s -> { s with Protect = Protect.Trust; Budget = 0.3 })
      "block", dns (Dns.block cut), protects (fun s -> { s with Threshold = cut; PartnerThreshold = cut })
      "tau", soft (Dns.tau 0.5), protects (fun s -> { s with Tau = 0.5 })
      "budget", trust (Dns.budget 0.5), protects (fun s -> { s with Budget = 0.5 })
      "totalBudget", trust (Dns.totalBudget 0.5), protects (fun s -> { s with Protect = Protect.Trust; TotalBudget = Some 0.5 }) ]

/// Lines of F# that must not compile, and what the compiler must say of each.
let private misuses =
    [ "let a = Baseline.vanilla |> Dns.exact true", [ "OnlyTrainingOptions"; "TakesExact" ]
      "let b = Baseline.zeroShot |> Learn.rate 1e-3", [ "NoOptions"; "TakesTrainingOptions" ]
      "let c = Dns.soft |> Dns.budget 0.1", [ "DnsSoftOptions"; "TakesBudget" ]
      "let d = Dns.trust |> Dns.moments Centring.Centred", [ "DnsTrustOptions"; "TakesMoments" ]
      "let e = Dns.defaults |> Dns.place Sides.Dual", [ "Place" ] ]

/// A value of a setter's first parameter.
let private argument (kind: Type) : objnull =
    if kind = typeof<float> then box 0.125
    elif kind = typeof<int> then box 3
    elif kind = typeof<bool> then box true
    elif kind = typeof<float option> then box (Some 0.5)
    elif kind = typeof<Threshold> then box (Threshold.trace 1e-3 |> Check.get)
    elif kind = typeof<Protection> then box (Protection.Soft 1e-4)
    else Reflection.FSharpValue.MakeUnion(Reflection.FSharpType.GetUnionCases(kind)[0], [||])

/// The modules `Learn` and `Dns`: each setter with the options that it sets and the type that it asks for.
let private setters () : (string * string * Set<string> * Type) list =
    [ for owner in [ "Learn"; "Dns" ] do
          for m in (typeof<Study>.Assembly.GetType($"Cmcl.{owner}") |> Unchecked.nonNull).GetMethods() do
              if m.IsGenericMethodDefinition then
                  let own = m.MakeGenericMethod typeof<AnyOptions>
                  let parameters = own.GetParameters()
                  let values = [| for p in parameters[.. parameters.Length - 2] -> argument p.ParameterType |]
                  let bare: objnull = box (Config.ofName "any": Config<AnyOptions>)
                  let changed = own.Invoke(null, Array.append values [| bare |]) |> Unchecked.nonNull |> unbox<Config<AnyOptions>>

                  owner,
                  m.Name,
                  changed.Options |> List.map fst |> Set.ofList,
                  m.GetGenericArguments() |> Array.head |> _.GetGenericParameterConstraints() |> Array.head ]

/// The modules `Dns` and `Baseline`: each method with the type that says what it takes.
let private offered () : (string * Entry * Type) list =
    [ for owner in [ "Dns"; "Baseline" ] do
          for p in (typeof<Study>.Assembly.GetType($"Cmcl.{owner}") |> Unchecked.nonNull).GetProperties() do
              if p.PropertyType.IsGenericType && p.PropertyType.GetGenericTypeDefinition() = typedefof<Config<_>> then
                  let takes = p.PropertyType.GetGenericArguments()
                  owner, Registry.find (string (p.GetValue null)) |> Check.get, takes[0] ]

let tests =
    testList
        "Config"
        [ for name, config, expected in typed do
              test $"the option {name} sets what it says and nothing else" (fun () ->
                  Expect.equal
                      (settingsOf config)
                      (expected (settingsOf (Config.named (Label.family config.Label))))
                      (string config))

          test "an option that is set again takes the new value in its place" (fun () ->
              let config = Dns.defaults |> Learn.rate 1e-3 |> Dns.exact true |> Learn.rate 1e-2
              Expect.equal config.Label "dns[lr=0.01;exact=on]" "label"
              Expect.equal (string (Config.named config.Label)) config.Label "read back")

          test "a configuration is a value: setting an option leaves it as it was" (fun () ->
              Dns.defaults |> Dns.exact true |> ignore
              Expect.equal Dns.defaults.Label "dns" "the default")

          test "a product has every combination once, and what is possible of it is what runs" (fun () ->
              let all =
                  [ Dns.defaults ]
                  |> Config.over Dns.place [ Place.Gradient; Place.Update; Place.Eigenbasis ]
                  |> Config.over Dns.sides [ Sides.Dual; Sides.Input ]
                  |> Config.over Dns.exact [ false; true ]

              Expect.equal (all |> List.distinctBy _.Label |> List.length) 12 "combinations"
              let possible, refused = all |> List.partition Config.isPossible
              Expect.equal refused.Length 4 "exact has no sense for the gradient, nor for one side"
              Expect.isOk (Plan.resolve synthetic.Value.Preset [] (possible |> List.map _.Label)) "possible"

              for config in refused do
                  Expect.isError (Plan.resolve synthetic.Value.Preset [] [ config.Label ]) config.Label)

          test "names that there are not, and values that an option does not take, are refused" (fun () ->
              match faultOf (fun () -> Config.set "tua" "1" Dns.soft) with
              | Fault.Unknown("hyperparameter", "tua", _) -> ()
              | other -> failtest other.Message

              Expect.stringContains (faultOf (fun () -> Learn.epochs 0 Dns.defaults)).Message "whole number ≥ 1" "value"
              Expect.stringContains (faultOf (fun () -> Config.named "dsn")).Message "dns" "method"
              Expect.stringContains (faultOf (fun () -> Config.named "dns[exact]")).Message "OPTION=VALUE" "form")

          test "a method of one's own cannot take a name that is taken" (fun () ->
              Expect.equal (Config.ofMethod { Plain.vanilla with Name = "mine" }).Label "mine" "its own name"

              match faultOf (fun () -> Config.ofMethod { Plain.vanilla with Summary = "another" }) with
              | Fault.Contradiction(what, _) -> Expect.stringContains what "vanilla" "which"
              | other -> failtest other.Message)

          test "an option that a method does not take does not compile"
          <| inFolder (fun folder ->
              let reference (name: string) = "#r @\"" + Path.Combine(AppContext.BaseDirectory, name) + "\""

              let checking =
                  [ for i, (line, expected) in List.indexed misuses do
                        let script = Path.Combine(folder, $"misuse{i}.fsx")

                        File.WriteAllLines(
                            script,
                            [ reference "Cmcl.dll"; reference "Cmcl.Study.dll"; reference "TorchSharp.dll"; "open Cmcl"; line ]
                        )

                        line, expected, start "dotnet" [ "fsi"; "--quiet"; "--nologo"; script ] ]

              for line, expected, compiler in checking do
                  let code, said = finish compiler
                  Expect.notEqual code 0 line
                  Expect.stringContains said "error FS" line

                  for part in expected do
                      Expect.stringContains said part line)

          test "what compiles is what a method takes, and what it takes compiles" (fun () ->
              let offered, setters = offered (), setters ()
              Expect.isGreaterThan offered.Length 15 "methods"
              Expect.isGreaterThan setters.Length 20 "setters"

              // Numbers that belong to a protection are set with it, where a method can be told what to protect.
              let numbers = set [ "threshold"; "partner-threshold"; "tau"; "budget"; "total-budget" ]

              for owner, e, kind in offered do
                  let m, takes = e.Method, set [ for o in Entry.takes e -> o.Name ]

                  for module', setter, options, wanted in setters do
                      let compiles = wanted.IsAssignableFrom kind
                      let taken = Set.isSubset options takes
                      let withProtection = takes.Contains "protect" && Set.isSubset options numbers

                      if compiles then
                          Expect.isTrue taken $"{m.Name} |> {module'}.{setter} compiles and would be refused"
                      elif module' = "Learn" || owner = "Dns" then
                          Expect.isTrue
                              (not taken || withProtection)
                              $"{m.Name} takes {module'}.{setter}, which does not compile") ]
