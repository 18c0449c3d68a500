// Builds data/emoji from the packages that scripts/emoji/install.sh installs. The same bytes every time on one machine.
//
//     bash scripts/emoji/install.sh && dotnet build cli -c Release && dotnet fsi scripts/emoji/build.fsx
#load "write.fsx"

open System.Diagnostics
open TorchSharp
open Inventory
open Render
open Axes
open Encode
open Bind
open Write

let watch = Stopwatch.StartNew()
// One thread: sums in one order, so the same bytes again.
torch.set_num_threads 1
printfn "items"
describe ()
printfn "pictures and speech"
render ()
check ()
printfn "features"
let encoded = encode ()
printfn "binding"
let weights = bind encoded
printfn "data/emoji"
write encoded weights
printfn "done in %.0f s" watch.Elapsed.TotalSeconds
