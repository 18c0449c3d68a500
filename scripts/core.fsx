// Only the library, for scripts of theorems and single runs: #load "core.fsx". Everything, with studies and charts: load.fsx.
[<AutoOpen>]
module Core

#nowarn "211" // one of these folders is there: this file stands in scripts/ and beside the built command
#I __SOURCE_DIRECTORY__
#I "../cli/bin/Release/net10.0"
// No folder has this name; where Cmcl.dll is not found, the compiler's message has it.
#r "This tree is not built. In its root run   dotnet build cli -c Release   once/../Cmcl.dll"
#r "TorchSharp.dll"

open System

Cmcl.Native.init ()

/// Whether small settings are asked for, by CMCL_SMALL=1: what the build runs scripts and notebooks with.
let small =
    match Environment.GetEnvironmentVariable "CMCL_SMALL" with
    | null
    | ""
    | "0" -> false
    | _ -> true
