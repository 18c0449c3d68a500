/// What `cmcl store` takes.
module Cmcl.Cli.StoreArguments

open Argu

[<RequireQualifiedAccess>]
type StoreListArgument =
    | [<MainCommand; ExactlyOnce>] Folder of FOLDER: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Folder _ -> "a results folder"

[<RequireQualifiedAccess>]
type StoreAdoptArgument =
    | [<MainCommand; ExactlyOnce>] Folder of FOLDER: string
    | Threads of N: int

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Folder _ -> "a results folder"
            | Threads _ -> "take them as run with so many threads, also those of this code (default: as many as they ran with)"

[<RequireQualifiedAccess>]
type StoreArgument =
    | [<CliPrefix(CliPrefix.None)>] List of ParseResults<StoreListArgument>
    | [<CliPrefix(CliPrefix.None)>] Adopt of ParseResults<StoreAdoptArgument>

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | List _ -> "every cell: where it stands, what it is, how long it took, whose code made it"
            | Adopt _ -> "take over cells that an earlier version or other code made, as if this code had made them"
