module Cmcl.Tests.NspTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// Three steps of rows in planes of their own, in eight dimensions.
let private stream () : Stream =
    let rows purpose n =
        let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 21 |> Seed.split purpose)
        (draw purpose n 2L).mm(draw (purpose + " plane") 2L 8L) |> Alignment.normalise

    streamOf
        [ vision, text, rows "1a" 20L, rows "1b" 20L
          audio, text, rows "2a" 16L, rows "2b" 16L
          vision, text, rows "3a" 18L, rows "3b" 18L ]

let private common = "epochs=3;batch=8;lr=1e-2;weight-decay=0.5"

/// The most that an output of an old step's rows changes from the end of its step to the end of the last, beside its size.
let private drift (written: string) : float =
    let s = stream ()
    let heads = run s 0 written |> snd

    [ for step in List.take 2 s.Steps do
          for bank in [ step.A; step.B ] do
              let outputs at = Heads.outputs (Heads.weight bank.Modality heads[at]) bank.Features
              Tensors.relativeDifference (outputs 3) (outputs step.Index) ]
    |> List.max

let tests =
    testList
        "Nsp"
        [ test "it is DNS with the update projected on one side" (fun () ->
              EwcTests.identicalRuns "nsp[epochs=1]" "dns[place=update;sides=input;epochs=1]"

              EwcTests.identicalRuns "nsp[epochs=1;threshold=rank:3]" "dns[place=update;sides=input;epochs=1;threshold=rank:3]")

          test "with all old directions protected no output on old inputs moves, though weights do" (fun () ->
              let all = "threshold=relative:1e-9"
              Expect.isLessThan (drift $"nsp[{common};{all}]") close "outputs"
              let heads = run (stream ()) 0 $"nsp[{common};{all}]" |> snd

              Expect.isGreaterThan
                  (Tensors.relativeDifference heads.[3].[modality text] heads.[1].[modality text])
                  1e-3
                  "weights")

          test "with the gradient projected in its place they move" (fun () ->
              let moved = drift $"dns[place=gradient;sides=input;{common};threshold=relative:1e-9]"
              Expect.isGreaterThan moved 1e-3 "AdamW bends it, decay is not projected"
              Expect.isGreaterThan (drift $"vanilla[{common}]") 1e-3 "fine-tuning")

          test "it takes the training options and a threshold, no other" (fun () ->
              Expect.equal
                  (Set.ofList [ for o in Entry.takes (Spec.entry NullSpace.nsp) -> o.Name ])
                  (Set.ofList ("threshold" :: [ for o in Settings.options -> o.Info.Name ]))
                  "fields"

              for name in [ for o in NullSpaceOptions.all -> o.Info.Name ] |> List.except [ "threshold" ] do
                  let preset: Preset = { Common = Map.empty; Methods = Map.empty; Run = [] }
                  Expect.isError (Plan.resolve preset [] [ $"nsp[{name}=on]" ]) name

              let preset: Preset =
                  { Common = Map [ "protect", "soft"; "place", "eigenbasis" ]
                    Methods = Map.empty
                    Run = [] }

              let o = NullSpaceOptions.of' (Plan.resolve preset [] [ "nsp" ] |> Check.get |> List.exactlyOne).Entry
              Expect.equal (o.Place, o.Sides, o.Protect) (Place.Update, Sides.Input, Protect.Block) "fixed") ]
