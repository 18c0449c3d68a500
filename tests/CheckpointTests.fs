module Cmcl.Tests.CheckpointTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

let private inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-checkpoint"

    try
        use scope = torch.NewDisposeScope()
        act folder.FullName
    finally
        folder.Delete true

/// Three steps of the synthetic stream.
let private short: Lazy<Stream> = lazy { synthetic.Value with Steps = List.take 3 synthetic.Value.Steps }

/// Every method, and what a method's state looks like under other options.
let private written =
    [ for m in Registry.methods -> m.Name ]
    @ [ "dns[place=update]"; "dns[place=gradient]"; "dns[protect=product]"; "dns-trust[total-budget=0.2]"; "ewc[online=0.9]"; "gem[place=update]"; "c-flat[host=derpp]"; "vanilla[optimizer=sgd]"; "vanilla[batch=all]"; "vanilla[symmetric=on;scores=cosine]" ]

let private resolve (stream: Stream) (text: string) : Plan =
    let plan = Plan.resolve stream.Preset [] [ text ] |> Check.get |> List.exactlyOne

    { plan with
        Settings = { plan.Settings with Epochs = 2 } }

/// What has to be the same: all but times.
let private figures (o: Cmcl.Outcome) =
    [ for r in o.Readings do
          if not (r.Metric.StartsWith "seconds") then
              r.Step, r.Task, r.Metric, BitConverter.DoubleToInt64Bits r.Value ],
    [ for step, epoch, loss in o.Losses -> step, epoch, BitConverter.DoubleToInt64Bits loss ],
    o.Spectra

let private whole (stream: Stream) (seed: int) (plan: Plan) : Cmcl.Outcome =
    Train.run stream torch.CPU Split.Test seed Observer.silent plan |> Check.get

let private over (ending: Result<Ending, Fault list>) : Cmcl.Outcome =
    match Check.get ending with
    | Ending.Over outcome -> outcome
    | Ending.Left -> failtest "left before its end"

/// A run left after every so many updates and steps, each time written, forgotten and read back.
let private inPieces (folder: string) (stream: Stream) (seed: int) (every: int) (plan: Plan) : Cmcl.Outcome * int =
    let rec go pieces =
        if pieces > 500 then
            failtest "it does not come to an end"

        let checkpoints = CheckpointFolder.Of(folder, stream, plan, seed, Split.Test, torch.CPU, 2)

        let from =
            match Check.get (checkpoints.Latest()) with
            | Some { Reached = Reached.Midst state }, [] -> Some state
            | None, [] -> None
            | _, faults -> failtest $"{faults}"

        let mutable rests = 0

        let keeper rest (state: unit -> RunState) =
            rests <- rests + 1

            if rests = every then
                checkpoints.Write
                    { Reached = Reached.Midst(state ())
                      Monitor = [] }
                |> Check.get

                true
            else
                false

        let ending =
            use scope = torch.NewDisposeScope()
            Train.resume stream torch.CPU Split.Test seed Observer.silent keeper from plan

        match Check.get ending with
        | Ending.Over outcome -> outcome, pieces
        | Ending.Left -> go (pieces + 1)

    go 0

let tests =
    testList
        "checkpoints"
        [ testList
              "a run in pieces is the run in one, bit for bit"
              [ for text in written ->
                    testCase text (fun () ->
                        inFolder (fun folder ->
                            let plan = resolve short.Value text
                            let outcome, pieces = inPieces folder short.Value 1 7 plan

                            if plan.Method.Curriculum <> Curriculum.Never then
                                Expect.isGreaterThan pieces 0 "pieces"

                            Expect.equal (figures outcome) (figures (whole short.Value 1 plan)) "figures")) ] ]
