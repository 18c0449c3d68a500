// The site: docs/ and the reference of the libraries, by fsdocs, into output/site. Works from a disk and offline.
//
//     dotnet fsi build.fsx -- docs
#load "site/finish.fsx"
#load "site/links.fsx"

open System.Diagnostics
open System.IO
open Markdown

Stage.run ()

// fsdocs keeps what it learned of the project, also its configuration.
if Directory.Exists(full ".fsdocs") then
    Directory.Delete(full ".fsdocs", true)

let info =
    ProcessStartInfo(
        "dotnet",
        [ "fsdocs"; "build"; "--clean"; "--nodefaultcontent"; "--mdcomments"; "--input"; "output/docs" ]
        @ ("--projects" :: List.map full Markdown.libraries)
        @ [ "--output"; "output/site" ]
        @ [ "--properties"; "Configuration=Release"; "--parameters"; "root"; "/@/" ],
        WorkingDirectory = root,
        RedirectStandardOutput = true
    )

let p = Process.Start info
let output = p.StandardOutput.ReadToEnd()
p.WaitForExit()

if p.ExitCode <> 0 || not (File.Exists(full "output/site/reference/index.html")) then
    printfn "%s" output
    exit 1

Finish.run ()
let faults = Links.check Finish.site
faults |> List.iter (eprintfn "%s")
let pages = Directory.GetFiles(Finish.site, "*.html", SearchOption.AllDirectories).Length
printfn "output/site/index.html: %d pages, %d dead links" pages faults.Length
exit (if faults.IsEmpty then 0 else 1)
