// What checkpoints cost: the share of a run's time that goes into writing them, after every step and every five seconds within one
// (docs/checkpoints.md):
//
//     dotnet fsi scripts/checkpoint-cost.fsx output/checkpoint-cost 1024 10000
//
// The folder, the columns and the rows of each bank (7 in 10 are trained on) may be left out: 256 columns and 1,000 rows.
#load "load.fsx"

open System
open System.Diagnostics
open System.IO
open Cmcl
open TorchSharp

let folder, columns, rows =
    match List.ofArray fsi.CommandLineArgs |> List.tail with
    | folder :: columns :: rows :: _ -> folder, int64 columns, int64 rows
    | folder :: _ -> folder, 256L, 1000L
    | [] -> Path.Combine(__SOURCE_DIRECTORY__, "..", "output", "checkpoint-cost"), 256L, 1000L

let stream =
    Synthetic.make
        { Synthetic.defaults with
            Dimension = columns
            Rank = columns / 4L
            Samples = rows }
        (Seed.ofInt 0)

if Directory.Exists folder then
    Directory.Delete(folder, true)

printfn "%-10s %8s %12s %10s %8s" "method" "run, s" "checkpoints" "each, ms" "share"

for text in [ "vanilla"; "dns" ] do
    let plan = Plan.resolve stream.Preset [ "epochs", "5"; "batch", "64" ] [ text ] |> Check.get |> List.head

    let protocol =
        { Split = Split.Test
          Device = torch.CPU
          Threads = torch.get_num_threads ()
          Monitor = None }

    let checkpoints = CheckpointFolder.Of(folder, Identity.of' protocol stream plan 0, torch.CPU, 2)
    let writing = Stopwatch()
    let mutable count = 0

    let write (state: RunState) =
        writing.Start()

        checkpoints.Write { State = state; Monitor = [] } |> Check.get

        writing.Stop()
        count <- count + 1

    let checkpointer = Cadence.checkpointer (Cadence.Seconds 5.0) (fun () -> false) write
    let clock = Stopwatch.StartNew()
    Train.resume stream torch.CPU Split.Test 0 Observer.silent checkpointer None plan |> Check.get |> ignore
    let seconds = clock.Elapsed.TotalSeconds
    let each = writing.Elapsed.TotalMilliseconds / float count
    printfn "%-10s %8.1f %12d %10.1f %7.2f %%" text seconds count each (100.0 * writing.Elapsed.TotalSeconds / seconds)
