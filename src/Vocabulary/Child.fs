namespace Cmcl

open System
open System.Diagnostics
open System.Text
open System.Text.Json

/// Processes that work for this one and speak with it, a line of JSON at a time.
[<RequireQualifiedAccess>]
module Child =
    /// Starts a process whose three streams are this one's to read and write, in UTF-8.
    /// As in `use worker = Child.start (System.Diagnostics.ProcessStartInfo("cmcl", [ "worker" ]))`.
    let start (info: ProcessStartInfo) : Process =
        let utf8 = UTF8Encoding false
        info.RedirectStandardInput <- true
        info.RedirectStandardOutput <- true
        info.RedirectStandardError <- true
        info.StandardInputEncoding <- utf8
        info.StandardOutputEncoding <- utf8
        info.StandardErrorEncoding <- utf8
        info.UseShellExecute <- false
        Process.Start info |> Option.ofObj |> Option.get

    /// What a line says; none for one that is no such JSON, since a native library may have its own to say.
    /// Example: `Child.line<string list> "[\"lr=0\"]" = Some [ "lr=0" ]`.
    let line<'a when 'a: not struct and 'a: not null> (line: string) : 'a option =
        try
            Option.ofObj (JsonSerializer.Deserialize<'a> line)
        with :? JsonException ->
            None
