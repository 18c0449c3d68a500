/// What `cmcl` takes on its command line, and how it becomes requests.
module Cmcl.Cli.Arguments

open Argu
open Cmcl.Cli.HeadArguments
open Cmcl.Cli.MomentsArguments
open Cmcl.Cli.ExtractArguments
open Cmcl.Cli.SweepArguments
open Cmcl.Cli.NotebookArguments

/// NAME=VALUE; without a sign, a name without a value.
let assignment (text: string) : string * string =
    match text.Split('=', 2) with
    | [| name; value |] -> name.Trim(), value.Trim()
    | _ -> text, ""

/// `cmcl run`. Options of training and of methods are not here (`OptionArguments`).
type RunArgument =
    | Stream of NAME_OR_FOLDER: string
    | Preset of NAME: string
    | [<AltCommandLine("-m")>] Methods of LIST: string
    | Seeds of LIST: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Split of NAME: string
    | Device of NAME: string
    | Threads of N: int
    | Jobs of N: int
    | Save_Weights
    | Force
    | [<AltCommandLine("-q")>] Quiet
    | Set of NAME_VALUE: string
    | Monitor of N: int
    | Checkpoint_Every of WHEN: string
    | Keep of N: int
    | Log_Format of KIND: string
    | No_Memory_Check

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Stream _ -> "the data: emoji (default), emoji-dense, synthetic, or a stream folder or file"
            | Preset _ ->
                $"""settings and methods in the place of those that the stream suggests: {System.String.Join(", ", Cmcl.Presets.names)}"""
            | Methods _ ->
                "methods, separated by commas, each with options of its own in brackets if wanted: vanilla,\"dns[lr=1e-3;exact=on]\" (default: what the stream suggests; cmcl methods lists them)"
            | Seeds _ -> "seeds, such as 0,1,2 or 0-9 (default: 0,1,2)"
            | Out _ -> "folder for the results (default: results/STREAM)"
            | Split _ -> "rows that figures are taken of: test (default) or validation"
            | Device _ -> "cpu (default), cuda or cuda:N"
            | Jobs _ ->
                "methods and seeds that run side by side (default: as many as the threads of each leave cores for; 1 on a GPU). Results are the same, times are not"
            | Threads _ -> "threads of libtorch (default: 1 for features of up to 512 columns, else one for each core)"
            | Save_Weights -> "write every head after every step: weights/METHOD/seed-S/step-TT/MODALITY.npy"
            | Force -> "replace results that are in the folder already"
            | Quiet -> "print nothing but errors"
            | Set _ -> "an option of training or of a method, as NAME=VALUE: the same as --NAME VALUE; may be given again"
            | Monitor _ ->
                "every N updates, how far the scores of each old step have moved, without its data: monitor.csv (default: after steps only)"
            | Checkpoint_Every _ ->
                "when to keep the whole state, so that cmcl resume can go on from there: auto (default: when half a minute has passed), step, every N updates (200), epochs (1ep) or seconds (30s) and after each step, or off"
            | Keep _ -> "checkpoints to keep of each method and seed (default: 2)"
            | Log_Format _ -> "text (default), or json: one line of JSON an event on standard output, and nothing else there"
            | No_Memory_Check -> "start even if more memory seems to be needed than is free"

/// `cmcl resume`.
[<RequireQualifiedAccess>]
type ResumeArgument =
    | [<MainCommand; ExactlyOnce>] Folder of RESULTS: string
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Folder _ -> "the results folder of a run that was interrupted"
            | Quiet -> "print nothing but errors"

/// `cmcl verify`. What it shares with `cmcl run` is said there once.
[<RequireQualifiedAccess>]
type VerifyArgument =
    | Stream of NAME_OR_FOLDER: string
    | Seed of N: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Device of NAME: string
    | Threads of N: int
    | Force
    | [<AltCommandLine("-q")>] Quiet
    | Set of NAME_VALUE: string

    /// The same argument of `cmcl run`.
    member private a.OfRun: RunArgument option =
        match a with
        | Seed _ -> None
        | Stream v -> Some(RunArgument.Stream v)
        | Out v -> Some(RunArgument.Out v)
        | Device v -> Some(RunArgument.Device v)
        | Threads n -> Some(RunArgument.Threads n)
        | Force -> Some RunArgument.Force
        | Quiet -> Some RunArgument.Quiet
        | Set v -> Some(RunArgument.Set v)

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Seed _ -> "the seed, a whole number (default: 0)"
            | Out _ -> "folder for verify.csv, curves.csv and verify.html (default: results/verify-STREAM)"
            | _ -> a.OfRun |> Option.map (fun shared -> (shared :> IArgParserTemplate).Usage) |> Option.defaultValue ""

/// `cmcl compare`. What it shares with `cmcl run` is said there once.
[<RequireQualifiedAccess>]
type CompareArgument =
    | Stream of LIST: string
    | [<AltCommandLine("-m")>] Methods of LIST: string
    | Seeds of LIST: string
    | Orders of N: int
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Jobs of N: int
    | Threads of N: int
    | Device of NAME: string
    | Split of NAME: string
    | Set of NAME_VALUE: string
    | Metrics of LIST: string
    | Against of METHOD: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            let shared (argument: RunArgument) = (argument :> IArgParserTemplate).Usage

            match a with
            | Stream _ ->
                "the data, one or several separated by commas: emoji (default), emoji-dense, synthetic, or stream folders or files"
            | Methods _ ->
                "methods, separated by commas, each with options of its own in brackets if wanted (default: every method that trains, and zero-shot)"
            | Seeds _ -> "seeds, such as 0,1,2 or 0-9 (default: 0-9)"
            | Orders _ -> "in how many orders of its steps each stream is run: its own and others drawn at random (default: 1)"
            | Out _ ->
                "folder for the results (default: results/compare). A comparison that was broken off goes on where it was: cells that are finished are not run again"
            | Jobs _ ->
                "worker processes side by side (default: as many as the threads of each leave cores for; 1 on a GPU). Results are the same, times are not"
            | Threads n -> shared (RunArgument.Threads n)
            | Device v -> shared (RunArgument.Device v)
            | Split v -> shared (RunArgument.Split v)
            | Set v -> shared (RunArgument.Set v)
            | Metrics _ -> "figures for tables and tests, separated by commas (default: those that the page says most with)"
            | Against _ ->
                "the method, by its label, that every other is tested against (default: dns, or else the first that trains step by step)"
            | Force -> "run every cell again, also those that are finished"
            | Quiet -> shared RunArgument.Quiet

/// `cmcl tune`. There is no `--split`: settings are chosen on validation rows.
[<RequireQualifiedAccess>]
type TuneArgument =
    | [<Mandatory; AltCommandLine("-m", "--methods")>] Method of LIST: string
    | Stream of NAME_OR_FOLDER: string
    | Seeds of LIST: string
    | Trials of N: int
    | Grid of AXES: string
    | Within of POINTS: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Jobs of N: int
    | Threads of N: int
    | Device of NAME: string
    | Set of NAME_VALUE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            let shared (argument: CompareArgument) = (argument :> IArgParserTemplate).Usage

            match a with
            | Method _ -> "the method to find settings for, or several separated by commas"
            | Stream _ -> "the data: emoji (default), emoji-dense, synthetic, or a stream folder or file"
            | Seeds _ -> "seeds, such as 0,1,2 or 0-9, over which each trial is averaged (default: 0)"
            | Trials _ -> "the most trials of a method; of a larger grid so many are drawn, the same every time (default: 12)"
            | Grid _ ->
                "values to try instead of the declared ones: \"lr=1e-4,5e-4;alpha=0.1,1\"; options that move together: \"threshold=partner-threshold=trace:1e-3,trace:1e-2\""
            | Within _ ->
                "of the trials whose recall@10 on validation rows is within so many points of the best, the one that moves old scores least is chosen (default: 0.5)"
            | Out _ ->
                "folder for trials.csv and preset.json (default: results/tune/STREAM). A search that was broken off goes on where it was"
            | Jobs n -> shared (CompareArgument.Jobs n)
            | Threads n -> shared (CompareArgument.Threads n)
            | Device v -> shared (CompareArgument.Device v)
            | Set v -> shared (CompareArgument.Set v)
            | Force -> shared CompareArgument.Force
            | Quiet -> shared CompareArgument.Quiet

/// `cmcl bench`. Lists are texts here; the command reads them.
[<RequireQualifiedAccess>]
type BenchArgument =
    | Quick
    | Parity
    | Forms of LIST: string
    | Sizes of LIST: string
    | Batches of LIST: string
    | Ranks of LIST: string
    | Threads of LIST: string
    | Dtype of LIST: string
    | Device of NAME: string
    | Rounds of N: int
    | Steps of LIST: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Quick ->
                "under a minute: none, published, block, block-own and soft at d = 1024 and a batch of 64, with the ratios; nothing is written unless --out is given"
            | Parity ->
                "time nothing: train every form on the device and by pure functions on the CPU, and tell how far the weights are apart; parity.csv is written if --out is given"
            | Forms _ -> $"""forms, separated by commas (default: all): {System.String.Join(", ", Cmcl.Form.names)}"""
            | Sizes _ -> "sizes d of the d × d heads (default: 256,768,1024,2048; with --parity 256)"
            | Batches _ -> "pairs in a batch (default: 64,256,1024; with --parity 64)"
            | Ranks _ ->
                "protected directions as shares of d (default: 1/4,1/16,1/2; with --parity 1/4); forms that have no rank are timed at the first"
            | Threads _ ->
                "threads of libtorch, one number after another (default: 1, and one for each core; with --parity one for each core)"
            | Dtype _ -> "float32, float64 or both (default: float32,float64; with --quick float32)"
            | Device _ -> "cpu (default), cuda or cuda:N"
            | Rounds _ -> "rounds in which forms take turns (default: 9, with --quick 15; where they take long fewer, but 5)"
            | Steps _ -> "rows of the whole steps, or off (default: 1000,2000,5000,10000; with --quick off)"
            | Out _ -> "folder for bench.csv, steps.csv and bench.html (default: results/bench)"
            | Force -> "replace a benchmark that is in the folder already"
            | Quiet -> "print nothing but errors"

/// `cmcl import`. What the formats are, `Cmcl.Importer` knows.
[<RequireQualifiedAccess>]
type ImportArgument =
    | [<MainCommand>] From of FORMAT_AND_FOLDER: string list
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Backbone of NAME: string
    | Steps of LIST: string
    | Validation of SHARE: string
    | Test of SHARE: string
    | Seed of N: string
    | Normalise
    | Allow_Zero_Rows
    | Order of LIST: string
    | Drop_Unmatched
    | Name of NAME: string
    | Memory of SIZE: string
    | Force
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | From _ -> "a format and a folder; without them the formats are listed"
            | Out _ -> "folder for the stream"
            | Backbone _ -> $"""cmcl-h5: {System.String.Join(", ", Cmcl.Published.backbones)}"""
            | Steps _ -> "cmcl-h5: the paper's steps by number, such as 1,2,4 (default: all eleven)"
            | Validation _ -> "share of the training rows held back for validation where no file says which (default: 0.1)"
            | Test _ -> "share of all rows for the test where no file says which (default: 0.2)"
            | Seed _ -> "seed that these rows are drawn with (default: 0)"
            | Normalise -> "scale every row to length 1 (default: as stored)"
            | Allow_Zero_Rows -> "keep rows of zeros, which are refused otherwise"
            | Order _ ->
                "all but cmcl-h5: modalities, those that are rather anchors first (default: vision,text,audio,thermal,depth,imu,video,tactile,point)"
            | Drop_Unmatched -> "all but cmcl-h5: leave out rows whose id the other modality has not, and list them"
            | Name _ -> "all but cmcl-h5: name of the stream (default: that of the folder given with --out)"
            | Memory _ ->
                "memory that files may take to be read, such as 8G or 800M (default: 4G, or three quarters of the machine's if that is less)"
            | Force -> "replace a stream that is in the folder already"
            | Quiet -> "print nothing but errors"

type ReportArgument =
    | [<MainCommand; ExactlyOnce>] Results of FOLDER: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Results _ -> "a folder that cmcl run wrote"

type InfoArgument =
    | [<MainCommand; ExactlyOnce>] Data of NAME_OR_FOLDER: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Data _ -> "emoji, emoji-dense, synthetic, or a stream folder or file"

type MethodsArgument =
    | [<MainCommand; Unique>] Method of NAME: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Method _ -> "one method, with all that it takes"

type Command =
    | [<CliPrefix(CliPrefix.None)>] Run of ParseResults<RunArgument>
    | [<CliPrefix(CliPrefix.None)>] Resume of ParseResults<ResumeArgument>
    | [<CliPrefix(CliPrefix.None)>] Compare of ParseResults<CompareArgument>
    | [<CliPrefix(CliPrefix.None)>] Tune of ParseResults<TuneArgument>
    | [<CliPrefix(CliPrefix.None)>] Sweep of ParseResults<SweepArgument>
    | [<CliPrefix(CliPrefix.None)>] Cell of ParseResults<CellArgument>
    | [<CliPrefix(CliPrefix.None)>] Verify of ParseResults<VerifyArgument>
    | [<CliPrefix(CliPrefix.None)>] Bench of ParseResults<BenchArgument>
    | [<CliPrefix(CliPrefix.None)>] Import of ParseResults<ImportArgument>
    | [<CliPrefix(CliPrefix.None)>] Report of ParseResults<ReportArgument>
    | [<CliPrefix(CliPrefix.None)>] Info of ParseResults<InfoArgument>
    | [<CliPrefix(CliPrefix.None)>] Methods of ParseResults<MethodsArgument>
    | [<CliPrefix(CliPrefix.None)>] Export of ParseResults<ExportArgument>
    | [<CliPrefix(CliPrefix.None)>] Apply of ParseResults<ApplyArgument>
    | [<CliPrefix(CliPrefix.None)>] Retrieve of ParseResults<RetrieveArgument>
    | [<CliPrefix(CliPrefix.None)>] Extract of ParseResults<ExtractArgument>
    | [<CliPrefix(CliPrefix.None)>] Moments of ParseResults<MomentsArgument>
    | [<CliPrefix(CliPrefix.None)>] Notebook of ParseResults<NotebookArgument>
    | [<CliPrefix(CliPrefix.None); SubCommand>] Metrics
    | [<CliPrefix(CliPrefix.None); SubCommand; Hidden>] Worker
    | Version

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Run _ -> "train methods on a stream, measure them, write results and a report"
            | Resume _ -> "go on with a run that was interrupted, from its checkpoints"
            | Compare _ ->
                "run many methods, seeds, orders and streams in worker processes, and compare them: tables, tests, a page"
            | Tune _ -> "choose a method's settings on validation rows"
            | Sweep _ -> "run what a sweep file says, here or on a cluster, and collect it"
            | Cell _ -> "run one cell of a sweep's folder"
            | Verify _ ->
                "check the theory in numbers on a stream, in float64 unless --dtype says otherwise: a table of conditions, and figures"
            | Bench _ -> "time training with and without protection, beside what the machine can do"
            | Import _ -> "make a stream folder of files of features; without arguments, list the formats"
            | Report _ -> "make the report of a results folder again"
            | Info _ -> "describe and check a stream"
            | Methods _ -> "list the methods and their options"
            | Export _ -> "trained heads out of a results folder, as one .safetensors file or as .npy files"
            | Apply _ -> "project new features through a trained head"
            | Extract _ -> "run an encoder over images, texts or recordings and write their features"
            | Moments _ -> "second moments of features in many files, accumulated and merged"
            | Retrieve _ -> "for each row of one array the best rows of another, with their scores"
            | Notebook _ -> "run the F# cells of a notebook and store their outputs in it, without Jupyter"
            | Metrics -> "list the metrics by name, with their formulas and whose they are"
            | Worker -> "run cells for another cmcl, a line of JSON each on standard input"
            | Version -> "print the version"
