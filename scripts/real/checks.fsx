// What the features mean: are neighbours of one family, and how much of what speech tells is only how long it lasts? Prints two tables.
//
//     dotnet fsi scripts/real/checks.fsx     (after scripts/real/build.fsx)
#load "write.fsx"
#r "../../cli/bin/Release/net10.0/Cmcl.Encoders.dll"
#r "../../cli/bin/Release/net10.0/NVorbis.dll"

open System
open System.IO
open Cmcl
open Cmcl.Encoders
open TorchSharp
open Sources
open Features
open Write

/// Rows of a bank for these items, float64, at unit length.
let private features (source: string) (bank: string) (items: Item[]) : torch.Tensor =
    let x = Npy.read (bankFile source bank) |> Check.get
    let ids = File.ReadAllLines(Path.ChangeExtension(bankFile source bank, "ids.txt"))
    let place = dict [ for i, id in Array.indexed ids -> id, int64 i ]
    Alignment.normalise ((x.index_select (0L, torch.tensor [| for i in items -> place[i.Id] |])).``to`` torch.float64)

/// How many items' nearest other item is of their family, and how many of two drawn at random are, in per cent.
let private neighbours (x: torch.Tensor) (items: Item[]) : float * float =
    use far = (9.0).AsScalar()
    let scores = x.mm (x.t ()) - torch.eye (x.shape[0], dtype = torch.float64) * far
    let nearest = scores.argmax(1L).data<int64>().ToArray()
    let hits = nearest |> Array.indexed |> Array.filter (fun (i, j) -> items[i].Family = items[int j].Family) |> Array.length
    let n = float items.Length
    let pairs = items |> Array.countBy _.Family |> Array.sumBy (fun (_, k) -> float k * float (k - 1))
    100.0 * float hits / n, 100.0 * pairs / (n * (n - 1.0))

/// Recall@10 in per cent, both directions' mean, of test rows by scores (higher is nearer).
let private recall (scores: torch.Tensor) : float =
    let of' (s: torch.Tensor) =
        let right = s.diagonal().unsqueeze 1L
        let better = s.gt(right).sum(1L).data<int64>().ToArray()
        better |> Array.averageBy (fun b -> if b < 10L then 100.0 else 0.0)

    (of' scores + of' (scores.t ())) / 2.0

/// The weights of a ridge regression of targets (n × k) on features (n × d, a column of ones put in).
let private regression (x: torch.Tensor) (y: torch.Tensor) : torch.Tensor -> torch.Tensor =
    let ones (x: torch.Tensor) = torch.cat ([| x; torch.ones (x.shape[0], 1L, dtype = torch.float64) |], 1L)
    let x1 = ones x
    let ridge = torch.eye (x1.shape[1], dtype = torch.float64)
    let w = torch.linalg.solve (x1.t().mm x1 .+ ridge, x1.t().mm y)
    fun x -> (ones x).mm w

printfn "Nearest neighbour of the same family, per cent (two at random in brackets)"

let found =
    [ for source, own, items in sources do
          if own |> List.forall (fun bank -> File.Exists(bankFile source bank)) then
              let read = [ for bank in own -> set (File.ReadAllLines(Path.ChangeExtension(bankFile source bank, "ids.txt"))) ]
              source, own, items () |> List.filter (fun i -> read |> List.forall (fun ids -> ids.Contains i.Id)) |> Array.ofList ]

for source, own, items in found do
    for bank in own do
        let share, chance = neighbours (features source bank items) items
        printfn "  %-22s %5.1f (%.1f)" (bankName source bank) share chance

printfn ""

printfn
    "Text and speech of test rows, recall@10 in per cent: by chance, by the length of the recording alone, by closed-form heads"

for source, own, items in found do
    let parts = byItem source items
    let rows part = torch.tensor (Array.map int64 (rowsOf parts part))
    let train, test = rows Train, rows Test

    for speech in own |> List.filter _.StartsWith("speech") do
        let seconds =
            [| for i in items ->
                   let r = Recordings.read 60.0 i.Forms[speech] |> Check.get
                   float r.Samples.Length / float r.Rate |]

        let length = torch.tensor(Array.map log seconds).reshape(-1L, 1L)
        let language = speech.Replace("speech", "text")
        let text = if List.contains language own then language else "text:en"
        let x, y = features source text items, features source speech items
        let pick (t: torch.Tensor) (rows: torch.Tensor) = t.index_select (0L, rows)
        let predicted = regression (pick x train) (pick length train) (pick x test)
        let byLength = (predicted.sub ((pick length test).t())).abs().neg()
        let pair = Pair.named "text" "speech"
        let moments = JointMoments.ofRows pair (pick x train) (pick y train)
        let heads, _ = Cca.solve Cca.defaults 288L moments |> Check.get
        let outputs m x = Alignment.normalise (Heads.outputs (Heads.weight m heads) x)
        let byHeads = (outputs pair.A (pick x test)).mm((outputs pair.B (pick y test)).t())

        printfn
            "  %-9s %-8s × %-9s %4.1f  %4.1f  %4.1f   (%d recordings, median %.1f s)"
            source
            text
            speech
            (1000.0 / float test.shape[0])
            (recall byLength)
            (recall byHeads)
            items.Length
            (Array.sort seconds).[seconds.Length / 2]
