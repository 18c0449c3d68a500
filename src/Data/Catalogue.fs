namespace Cmcl

open System

/// Where a stream comes from.
[<RequireQualifiedAccess>]
type StreamPlace =
    /// Made by `Synthetic.make` with its defaults.
    | Synthetic
    /// A stream file, by its full path.
    | File of path: string
    /// One of those with its items split anew (`Resplit.apply`), by the number of the split.
    | Resplit of StreamPlace * number: int

    override p.ToString() =
        match p with
        | Synthetic -> "synthetic"
        | File path -> path
        | Resplit(place, number) -> Resplit.name (string place) number

/// Finding streams by name or by path.
[<RequireQualifiedAccess>]
module Catalogue =

    /// The shipped streams and their files, relative to a folder that may be anywhere above.
    let private shipped =
        [ "emoji", "data/emoji/stream.json"
          "emoji-dense", "data/emoji/dense.json"
          "real", "data/real/stream.json"
          "real-bound", "data/real/bound.json" ]

    /// The names that need no path.
    let names: string list = List.map fst shipped @ [ "synthetic" ]

    /// The folder and all those above it, nearest first. As in `Catalogue.upwards "/a/b"`: `/a/b`, `/a`, `/`.
    let rec upwards (folder: string) : string list =
        match IO.Path.GetDirectoryName folder with
        | null -> [ folder ]
        | above -> folder :: upwards above

    /// Where the stream of this name or path is, with `[split=N]` behind it for another split. Names win over folders of the same name:
    /// write `./emoji` for a folder.
    /// Shipped streams are looked for from the current folder upwards, then from the program's folder upwards.
    /// Faults: `Unknown` for a name that nothing has, `Missing` for a path that leads nowhere.
    let rec locate (name: string) : Result<StreamPlace, Fault list> =
        let found =
            if IO.Directory.Exists name then Some(IO.Path.Combine(name, StreamFolder.DefaultFile))
            elif IO.File.Exists name then Some name
            else None

        let stream, split = Resplit.parse name

        match List.tryFind (fun (n, _) -> n = name) shipped, found with
        | None, None when stream <> name ->
            locate stream |> Result.map (fun place -> if split = 0 then place else StreamPlace.Resplit(place, split))
        | Some(_, file), _ ->
            upwards (IO.Directory.GetCurrentDirectory()) @ upwards AppContext.BaseDirectory
            |> List.map (fun folder -> IO.Path.Combine(folder, file))
            |> List.tryFind IO.File.Exists
            |> function
                | Some path -> Ok(StreamPlace.File path)
                | None -> Error [ Fault.Missing(file, $"the stream '{name}'") ]
        | None, _ when name = "synthetic" -> Ok StreamPlace.Synthetic
        | None, Some path -> Ok(StreamPlace.File(IO.Path.GetFullPath path))
        | None, None when name.IndexOfAny [| '/'; '\\' |] >= 0 || name.EndsWith ".json" ->
            Error [ Fault.Missing(name, "the stream") ]
        | None, None -> Error [ Fault.Unknown("stream", name, names @ [ "or the path of a stream folder or file" ]) ]

    /// Loads the stream; its tensors belong to the caller.
    let rec load (place: StreamPlace) : Result<Stream, Fault list> =
        match place with
        | StreamPlace.Synthetic -> Ok(Synthetic.make Synthetic.defaults (Seed.ofInt 0))
        | StreamPlace.File path -> StreamFolder.load path
        | StreamPlace.Resplit(place, number) -> load place |> Result.bind (Resplit.apply number)

    /// Finds and loads. Example: `Catalogue.find "synthetic"`.
    let find (name: string) : Result<Stream, Fault list> = locate name |> Result.bind load
