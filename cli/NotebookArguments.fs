/// What `cmcl notebook` takes.
module Cmcl.Cli.NotebookArguments

open Argu

[<RequireQualifiedAccess>]
type RunNotebookArgument =
    | [<MainCommand; ExactlyOnce>] File of FILE: string
    | [<AltCommandLine("-o")>] Out of FILE: string
    | Timeout of SECONDS: float
    | Small
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | File _ -> "an .ipynb file with F# cells"
            | Out _ -> "file for the notebook with its outputs (default: FILE itself, as Jupyter saves it)"
            | Timeout _ -> "how long one cell may take (default: as long as it likes)"
            | Small ->
                "set CMCL_SMALL=1 for the cells, which makes `small` of load.fsx true: a notebook that asks for it runs on small settings"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type StripNotebookArgument =
    | [<MainCommand; ExactlyOnce>] File of FILE: string
    | [<AltCommandLine("-o")>] Out of FILE: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | File _ -> "an .ipynb file"
            | Out _ -> "file for the notebook without outputs (default: FILE itself)"

[<RequireQualifiedAccess>]
type NotebookArgument =
    | [<CliPrefix(CliPrefix.None)>] Run of ParseResults<RunNotebookArgument>
    | [<CliPrefix(CliPrefix.None)>] Strip of ParseResults<StripNotebookArgument>
    | [<CliPrefix(CliPrefix.None); SubCommand; Hidden>] Cells

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Run _ -> "run the cells in order up to the first that fails, and write the notebook with its outputs after each"
            | Strip _ -> "take the outputs off"
            | Cells -> "run cells for another cmcl, which sends them on standard input"
