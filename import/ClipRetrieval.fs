namespace Cmcl

open System.IO

/// The folders that clip-retrieval leaves: `img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy`, `metadata/metadata_0.parquet`, shard by
/// shard, row i of each the same pair.
[<RequireQualifiedAccess>]
module ClipRetrieval =

    let private shards (folder: string) (ending: string) : string list =
        if Directory.Exists folder then
            Directory.EnumerateFiles(folder, $"*{ending}") |> Seq.sortWith StreamDraft.natural |> List.ofSeq
        else
            []

    /// The modality of a folder of embeddings, `img_emb` or `text_emb`.
    let private modality (folder: string) : string option =
        match Path.GetFileName folder |> string with
        | "img_emb" -> Some "vision"
        | name when name.EndsWith "_emb" && (Modality.create (name.Substring(0, name.Length - 4))).IsOk ->
            Some(name.Substring(0, name.Length - 4))
        | _ -> None

    let private piece holds : Named.Piece = { Step = ""; Part = None; Holds = holds }

    /// The pieces of such a folder: one step, whose rows have no parts yet.
    let read (tell: ImportEvent -> unit) (folder: string) : Result<Named.Piece list, Fault list> =
        let features =
            [ for sub in Directory.EnumerateDirectories folder |> Seq.sortWith StreamDraft.natural do
                  match modality sub with
                  | Some m ->
                      for file in shards sub ".npy" do
                          tell (ImportEvent.Reading file)

                          NpyTable.ofFile file
                          |> Result.bind (FeatureTable.select (Some m))
                          |> Result.map (fun table -> [ piece (Named.Features(m, table)) ])
                  | None -> () ]

        let ids =
            [ for file in shards (Path.Combine(folder, "metadata")) ".parquet" do
                  tell (ImportEvent.Reading file)

                  ArrowTable.ofParquet file
                  |> Result.bind FeatureTable.idsOf
                  |> Result.map (fun ids -> [ for ids in Option.toList ids -> piece (Named.Words("ids", file, ids)) ]) ]

        features @ ids |> Check.all |> Result.map List.concat
