namespace Cmcl

open System.IO
open TorchSharp

/// A row that was found, and its score.
[<Struct>]
type Neighbour = { Row: int64; Score: float }

/// The best rows of one matrix for each row of another, tile by tile, never all scores at a time.
[<RequireQualifiedAccess>]
module Nearest =
    /// Rows of either side whose scores are held at once.
    let private tile = 4096L

    let private spans (size: int64) (n: int64) : (int64 * int64) list =
        [ for first in 0L .. size .. n - 1L -> first, min size (n - first) ]

    /// `search` with tiles of another size.
    let searchWithin (tile: int64) (scoring: Scoring) (k: int) (a: torch.Tensor) (b: torch.Tensor) : seq<Neighbour[]> =
        Tensors.requireMatrix "rows that look" -1L -1L a
        Tensors.requireMatrix "rows to be found" -1L a.shape[1] b

        if k < 1 || int64 k > b.shape[0] then
            Check.fail (Fault.BadValue("k", $"a whole number from 1 to {b.shape[0]}, the rows to be found", string k))

        let dtype = if a.dtype = torch.float64 || b.dtype = torch.float64 then torch.float64 else torch.float32

        let prepared (what: string) (x: torch.Tensor) (first: int64, count: int64) =
            Tensors.scoped (fun () ->
                let rows = x.narrow (0L, first, count)

                match Tensors.nonFiniteRow rows with
                | Some row -> Check.fail (Fault.NonFinite(what, first + row))
                | None -> rows.``to`` dtype |> Alignment.prepare scoring)

        let best (n: int64) (scores: torch.Tensor) : torch.Tensor * torch.Tensor =
            let struct (values, places) = scores.topk (int (min (int64 k) n), 1)
            values, places

        /// The best of a tile's rows so far, and those of one more span of `b`.
        let merge (rows: torch.Tensor) (values: torch.Tensor, found: torch.Tensor) (first: int64, count: int64) =
            use scope = torch.NewDisposeScope()
            let scores = rows.mm ((prepared "rows to be found" b (first, count)).t())
            let newValues, places = best count scores
            let all, rowsOf = torch.cat ([| values; newValues |], 1L), torch.cat ([| found; places.plus first |], 1L)
            let kept, places = best all.shape[1] all
            scope.MoveToOuter kept, scope.MoveToOuter(rowsOf.gather (1L, places))

        let ofTile (first: int64, count: int64) : Neighbour[][] =
            use scope = torch.NewDisposeScope()
            let rows = prepared "rows that look" a (first, count)

            let nothing =
                torch.empty (count, 0L, dtype = dtype, device = a.device),
                torch.empty (count, 0L, dtype = torch.int64, device = a.device)

            let values, found = spans tile b.shape[0] |> List.fold (merge rows) nothing
            let values = values.``to``(torch.float64).cpu().contiguous().data<float>().ToArray()
            let found = found.cpu().contiguous().data<int64>().ToArray()

            [| for i in 0 .. int count - 1 ->
                   [| for j in i * k .. (i + 1) * k - 1 -> { Row = found[j]; Score = values[j] } |]
                   |> Array.sortWith (fun x y -> compare (-x.Score, x.Row) (-y.Score, y.Row)) |]

        spans tile a.shape[0] |> Seq.collect ofTile

    /// For each row of `a` in order the k rows of `b` with the highest scores (inner products, or cosines), best first, rows of equal
    /// score by their number; which of them stay where not all have room is left open. Computed as the sequence is read, in tiles of
    /// 4096 × 4096 scores, in float32 unless one side is float64. Raises `Fault.NonFinite` for a NaN or infinity in either.
    /// As in `Nearest.search Scoring.Cosine 10 ya yb`.
    let search (scoring: Scoring) (k: int) (a: torch.Tensor) (b: torch.Tensor) : seq<Neighbour[]> =
        searchWithin tile scoring k a b

    /// Writes what was found as CSV, `query,rank,match,score`, rows by name (or by number, from 0); rank 1 is the best.
    let write (nameA: int64 -> string) (nameB: int64 -> string) (found: seq<Neighbour[]>) (writer: TextWriter) : unit =
        let lines =
            found
            |> Seq.indexed
            |> Seq.collect (fun (row, best) ->
                best |> Array.mapi (fun i n -> [ nameA (int64 row); string (i + 1); nameB n.Row; Csv.number n.Score ]))

        Csv.write [ "query"; "rank"; "match"; "score" ] id lines writer
