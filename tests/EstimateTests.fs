module Cmcl.Tests.EstimateTests

open Expecto
open Cmcl
open Cmcl.Tests.Checks

let private plans text = Plan.resolve synthetic.Value.Preset [] text |> Check.get
let private gib (x: float) = int64 (x * float (1L <<< 30))

let tests =
    testList
        "Estimate"
        [ test "more jobs, more steps at once and wider types take more" (fun () ->
              let stream = synthetic.Value
              let of' jobs text = Estimate.run stream jobs (plans text)
              Expect.isGreaterThan (of' 4 [ "vanilla" ]) (of' 1 [ "vanilla" ]) "jobs"
              Expect.isGreaterThan (of' 1 [ "joint" ]) (of' 1 [ "vanilla" ]) "all at once"
              Expect.isGreaterThan (of' 1 [ "vanilla[dtype=float64]" ]) (of' 1 [ "vanilla" ]) "type"
              Expect.equal (of' 1 [ "vanilla"; "joint" ]) (of' 1 [ "joint" ]) "the dearest decides")

          test "a run that needs more than there is, is refused with both figures and what to do" (fun () ->
              let stream = synthetic.Value
              let needed = Estimate.run stream 2 (plans [ "vanilla" ])
              Expect.isOk (Estimate.check needed stream 2 (plans [ "vanilla" ])) "it fits"

              match Estimate.check (gib 0.25) stream 2 (plans [ "vanilla" ]) with
              | Error [ fault ] ->
                  for words in [ "0.2 GiB are free"; "--jobs"; "--no-memory-check" ] do
                      Expect.stringContains fault.Message words "told"
              | other -> failtest $"{other}")

          test "what is available is something, and no more than a large machine has" (fun () ->
              let available = Estimate.available ()
              Expect.isGreaterThan available (gib 0.1) "something"
              Expect.isLessThan available (gib 100_000.0) "no more") ]
