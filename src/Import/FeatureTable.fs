namespace Cmcl

open TorchSharp

/// The rows of one array of one file: what its head says, and how its numbers are read.
type FeatureTable =
    {
        /// The file, and the array in it if it has several, for what is told of it.
        File: string
        Type: torch.ScalarType
        Rows: int64
        Columns: int64
        /// The id of every row; none where rows are matched by their order.
        Ids: string[] option
        /// The class of every row, "" for none; none where the file says no classes.
        Labels: string[] option
        /// Gives every block of rows: its first row, and rows × d. The block is freed after the call.
        Read: (int64 -> torch.Tensor -> unit) -> Result<unit, Fault list>
    }

[<RequireQualifiedAccess>]
module FeatureTable =
    /// What a row is called beside its number.
    let rowName (table: FeatureTable) (row: int64) : string =
        match table.Ids with
        | Some ids -> ids[int row]
        | None -> ""

    /// Faults of ids that come twice, the first ten.
    let repeated (table: FeatureTable) : Fault list =
        match table.Ids with
        | None -> []
        | Some ids ->
            let twice = ids |> Seq.countBy id |> Seq.filter (fun (_, n) -> n > 1) |> Seq.map fst |> List.ofSeq

            if twice.IsEmpty then
                []
            else
                [ Fault.Contradiction($"'{table.File}' has ids twice: {Draft.firstTen twice}", "give every row an id of its own") ]
