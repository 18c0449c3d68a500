namespace Cmcl

open System
open TorchSharp

/// A row of the other bank, and whether it is one of the query's matches.
[<Struct>]
type Partner = { Row: int64; IsMatch: bool }

/// What one method finds for a query.
type FoundPartners =
    {
        /// The best of the other side, best first.
        Best: Partner list
        /// At which place the first of the query's matches stands, from 1.
        Rank: int
        /// The same under the heads at the end of the task's own step, where a later step is looked at.
        Learned: int option
    }

/// A row that looks for its match, and what each method finds.
type GalleryQuery =
    { Row: int64
      Matches: int64 list
      Found: (string * FoundPartners) list }

/// Some queries of one task, the same for every method.
type GalleryTask =
    {
        Step: Step
        /// The bank that looks, and the one that is looked in.
        Query: Bank
        Partner: Bank
        /// How many rows are looked in.
        Candidates: int
        Queries: GalleryQuery list
        /// R@1 and R@5 of all measured rows as the run measured them, by method.
        Recall: Map<string, float * float>
    }

    /// How many of the queries have a match among a method's first k.
    member t.Within (k: int) (label: string) : int =
        t.Queries |> List.filter (fun q -> q.Found |> List.exists (fun (l, f) -> l = label && f.Rank <= k)) |> List.length

/// What is to be looked at.
type GalleryRequest =
    {
        Results: string
        Stream: Stream
        /// The rows that the run was measured on.
        Split: Split
        Seed: int
        /// Heads are those at its end.
        Step: int
        Methods: string list
        /// Steps by number, none of them later.
        Tasks: int list
        /// Queries a task.
        Count: int
        /// b looks in a.
        Reverse: bool
    }

/// What the heads of a run retrieve for a few rows of each task.
[<RequireQualifiedAccess>]
module Gallery =
    /// So many partners are shown.
    [<Literal>]
    let Shown = 5

    /// Some of n places, in their order; the same for the same n, count and name. Example: `Gallery.draw "step 1" 3 100L`.
    let draw (name: string) (count: int) (n: int64) : int64[] =
        use scope = torch.NewDisposeScope()
        let all = Seed.ofInt 0 |> Seed.split "gallery" |> Seed.split name |> Seed.permutation n
        all.data<int64>().ToArray() |> Array.truncate count |> Array.sort

    /// The places of the k highest scores, best first, of equal ones the earlier. Example: `Gallery.best 2 [| 0.5; 0.9; 0.5 |]` is 1, 0.
    let best (k: int) (scores: float[]) : int list =
        [ 0 .. scores.Length - 1 ] |> List.sortBy (fun i -> -scores[i], i) |> List.truncate k

    /// The place of one score among all in that order, from 1. Example: `Gallery.rank [| 0.5; 0.9; 0.5 |] 2 = 3`.
    let rank (scores: float[]) (place: int) : int =
        let own = scores[place]
        let mutable before = 0

        for i in 0 .. scores.Length - 1 do
            if scores[i] > own || scores[i] = own && i < place then
                before <- before + 1

        before + 1

    /// The rows of one side of a task, each once.
    type private Side = { Bank: Bank; Rows: int64[] }

    /// The side that looks, the side that is looked in, and the places there of every query's matches.
    let private sides (reverse: bool) (split: Split) (step: Step) : struct (Side * Side * int[][]) =
        let struct (ofA, ofB) = Stream.bankRows split step
        let looking, other = if reverse then ofB, ofA else ofA, ofB
        let query, partner = if reverse then step.B, step.A else step.A, step.B
        let struct (firstQueries, queryOf) = Matches.distinct looking
        let struct (firstPartners, partnerOf) = Matches.distinct other
        let matches = Array.init firstQueries.Length (fun _ -> ResizeArray())

        for i in 0 .. looking.Length - 1 do
            matches[int queryOf[i]].Add(int partnerOf[i])

        let rows (first: int64[]) (all: int64[]) = first |> Array.map (fun i -> all[int i])

        struct ({ Bank = query; Rows = rows firstQueries looking },
                { Bank = partner; Rows = rows firstPartners other },
                matches |> Array.map _.ToArray())

    /// Rows whose outputs are made at once.
    let private atOnce = 8192

    /// Scores (queries × partners) under saved heads, as the run scores.
    let private scores (saved: SavedHeads) (query: Side) (partner: Side) : Result<float[][], Fault list> =
        let scoring = if Map.tryFind "scores" saved.About = Some "cosine" then Scoring.Cosine else Scoring.Raw

        let outputs (head: AppliedHead) (bank: Bank) (rows: int64[]) : torch.Tensor =
            Tensors.scoped (fun () ->
                let dtype = if head.Weight.dtype = torch.float64 then Dtype.Float64 else Dtype.Float32
                let x = Stream.gather dtype torch.CPU bank rows
                torch.cat [| yield! Projected.blocks scoring $"bank '{bank.Name}'" head x |])

        validated {
            let! a = Projected.head saved query.Bank.Modality query.Bank.Features.shape[1]
            and! b = Projected.head saved partner.Bank.Modality partner.Bank.Features.shape[1]
            return a, b
        }
        |> Result.map (fun (a, b) ->
            use scope = torch.NewDisposeScope()
            let looking = outputs a query.Bank query.Rows
            let all = Array.init query.Rows.Length (fun _ -> Array.zeroCreate<float> partner.Rows.Length)

            for first, rows in partner.Rows |> Array.chunkBySize atOnce |> Array.mapi (fun i rows -> i * atOnce, rows) do
                use scope = torch.NewDisposeScope()
                let found = looking.mm ((outputs b partner.Bank rows).t())
                let found = found.``to``(torch.float64).contiguous().data<float>().ToArray()

                for i in 0 .. all.Length - 1 do
                    Array.blit found (i * rows.Length) all[i] first rows.Length

            all)

    /// Scores of one method after a step.
    let private scoresAfter (request: GalleryRequest) (query: Side) (partner: Side) (label: string) (step: int) =
        use scope = torch.NewDisposeScope()

        RunHeads.read request.Results label request.Seed (Some step) |> Result.bind (fun saved -> scores saved query partner)

    let private recall (request: GalleryRequest) (rows: Row list) (step: Step) : Map<string, float * float> =
        let way = if request.Reverse then "ba" else "ab"

        let value label metric =
            rows
            |> List.tryFind (fun r ->
                r.Method = label
                && r.Seed = request.Seed
                && r.Metric = $"{metric}_{way}"
                && r.When = When.After(request.Step, step.Index))
            |> Option.map _.Value

        Map
            [ for label in request.Methods do
                  match value label "r1", value label "r5" with
                  | Some one, Some five -> label, (one, five)
                  | _ -> () ]

    let private task (request: GalleryRequest) (rows: Row list) (step: Step) : Result<GalleryTask, Fault list> =
        let struct (looking, partner, matches) = sides request.Reverse request.Split step
        let places = draw step.Name request.Count looking.Rows.LongLength |> Array.map int

        let query =
            { looking with
                Rows = places |> Array.map (fun i -> looking.Rows[i]) }

        let found (label: string) : Result<string * FoundPartners[], Fault list> =
            let scored = scoresAfter request query partner label

            let learned =
                if request.Step > step.Index && List.contains step.Index (RunHeads.steps request.Results label request.Seed) then
                    scored step.Index |> Result.map Some
                else
                    Ok None

            validated {
                let! now = scored request.Step
                and! learned = learned
                return now, learned
            }
            |> Result.map (fun (now, learned) ->
                let first (scores: float[][]) q = matches[places[q]] |> Seq.map (rank scores[q]) |> Seq.min

                label,
                [| for q in 0 .. places.Length - 1 ->
                       { Best =
                           [ for i in best Shown now[q] ->
                                 { Row = partner.Rows[i]
                                   IsMatch = Array.contains i matches[places[q]] } ]
                         Rank = first now q
                         Learned = learned |> Option.map (fun scores -> first scores q) } |])

        request.Methods
        |> List.map found
        |> Check.all
        |> Result.map (fun found ->
            { Step = step
              Query = looking.Bank
              Partner = partner.Bank
              Candidates = partner.Rows.Length
              Queries =
                [ for q in 0 .. places.Length - 1 ->
                      { Row = query.Rows[q]
                        Matches = [ for i in matches[places[q]] -> partner.Rows[i] ]
                        Found = [ for label, all in found -> label, all[q] ] } ]
              Recall = recall request rows step })

    /// What each method's heads retrieve for some rows of each task: the same rows for every method and every run over these data. Faults: those of
    /// `RunHeads.read`, `Projected.head` and `Results.read`.
    let make (request: GalleryRequest) : Result<GalleryTask list, Fault list> =
        Results.read request.Results
        |> Result.bind (fun rows ->
            request.Stream.Steps
            |> List.filter (fun step -> List.contains step.Index request.Tasks)
            |> List.map (task request rows)
            |> Check.all)
