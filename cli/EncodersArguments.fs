/// What `cmcl encoders` takes.
module Cmcl.Cli.EncodersArguments

open Argu

[<RequireQualifiedAccess>]
type EncodersGetArgument =
    | [<MainCommand; ExactlyOnce>] Names of NAME: string list
    | Force

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Names _ -> "encoders by name (cmcl encoders list)"
            | Force -> "fetch again what is in the cache"

[<RequireQualifiedAccess>]
type EncodersShowArgument =
    | [<MainCommand; ExactlyOnce>] Name of NAME: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Name _ -> "an encoder by name (cmcl encoders list)"

[<RequireQualifiedAccess>]
type EncodersArgument =
    | [<CliPrefix(CliPrefix.None); SubCommand>] List
    | [<CliPrefix(CliPrefix.None)>] Get of ParseResults<EncodersGetArgument>
    | [<CliPrefix(CliPrefix.None)>] Show of ParseResults<EncodersShowArgument>

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | List -> "encoders with a ready description, their licences, and which are in the cache"
            | Get _ -> "fetch weights by package into the cache, their sums checked; prints the descriptions' paths"
            | Show _ -> "print a description, to put beside weights of your own"
