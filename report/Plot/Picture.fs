namespace Cmcl

open System
open System.Diagnostics
open System.IO
open System.Text
open System.Text.RegularExpressions
open System.Threading.Tasks
open Plotly.NET

/// Charts as files: what the buttons of a page save, drawn by plotly.js in a browser without a window.
[<RequireQualifiedAccess>]
module internal Picture =
    /// The environment's name for the browser to take.
    [<Literal>]
    let Variable = "CMCL_BROWSER"

    let private programs =
        [ "chromium"
          "chromium-browser"
          "google-chrome"
          "google-chrome-stable"
          "chrome"
          "microsoft-edge"
          "msedge"
          "brave-browser" ]

    let private places =
        [ for name in [ "Google Chrome"; "Chromium"; "Microsoft Edge" ] do
              $"/Applications/{name}.app/Contents/MacOS/{name}"

          for root in [ Environment.SpecialFolder.ProgramFiles; Environment.SpecialFolder.ProgramFilesX86 ] do
              for name in [ @"Google\Chrome\Application\chrome.exe"; @"Microsoft\Edge\Application\msedge.exe" ] do
                  Path.Combine(Environment.GetFolderPath root, name) ]

    let private set (variable: string) = Environment.GetEnvironmentVariable variable |> Option.ofObj |> Option.filter ((<>) "")

    /// The browser that the environment names, or the first that is installed.
    let private browser (path: string) : Result<string, Fault list> =
        let folders =
            set "PATH" |> Option.map (fun text -> List.ofArray (text.Split Path.PathSeparator)) |> Option.defaultValue []

        let installed =
            [ for name in programs do
                  for folder in folders do
                      Path.Combine(folder, (if OperatingSystem.IsWindows() then name + ".exe" else name))
              yield! places ]

        match set Variable, List.tryFind File.Exists installed with
        | Some named, _ when not (File.Exists named) ->
            Error [ Fault.Missing(named, $"{Variable}, which names the browser that draws,") ]
        | Some named, _ -> Ok named
        | None, Some found -> Ok found
        | None, None ->
            Error
                [ Fault.Contradiction(
                      $"'{path}' is drawn by a browser, and none was found",
                      $"install Chromium, Chrome or Edge, name one in {Variable}, or save the chart with the buttons of a page (Sheet.save)"
                  ) ]

    let private patience = TimeSpan.FromMinutes 1.0

    /// What a browser says of a page, with options of its own; it is ended when it takes too long.
    let private visit
        (path: string)
        (program: string)
        (folder: string)
        (page: string)
        (options: string list)
        : Result<string, Fault list> =
        let html = Path.Combine(folder, "chart.html")
        File.WriteAllText(html, page, UTF8Encoding false)

        let arguments =
            [ "--headless"
              // The page is this library's own and loads nothing; in containers and for root a browser has no sandbox.
              "--no-sandbox"
              "--disable-gpu"
              "--disable-dev-shm-usage"
              "--no-first-run"
              "--disable-background-networking"
              "--disable-component-update"
              "--disable-sync"
              "--virtual-time-budget=20000"
              $"--user-data-dir={folder}"
              yield! options
              Uri(html).AbsoluteUri ]

        let failed (why: string) =
            Error
                [ Fault.Unwritable(path, $"the browser '{program}' did not draw it: {why}; another can be named in {Variable}") ]

        try
            use p =
                new Process(
                    StartInfo = ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true)
                )

            p.Start() |> ignore
            let said, complaints = p.StandardOutput.ReadToEndAsync(), p.StandardError.ReadToEndAsync()

            // Its output ends with the last of its processes.
            if not (p.WaitForExit patience && Task.WaitAll([| said :> Task; complaints |], patience)) then
                p.Kill true
                failed $"it took more than {patience.TotalSeconds} s"
            elif p.ExitCode <> 0 then
                let last = complaints.Result.Split('\n', StringSplitOptions.RemoveEmptyEntries) |> Array.tryLast
                failed $"""exit code {p.ExitCode}, {Option.defaultValue "without a word" last}"""
            else
                Ok said.Result
        with
        | :? ComponentModel.Win32Exception
        | :? InvalidOperationException as e -> failed e.Message

    let private inFolder (act: string -> 'a) : 'a =
        let folder = Directory.CreateTempSubdirectory "cmcl-picture-"

        try
            act folder.FullName
        finally
            // The browser's last threads may still write.
            try
                folder.Delete true
            with
            | :? IOException
            | :? UnauthorizedAccessException -> ()

    /// A page that becomes nothing but the picture in base 64, or the reason why there is none.
    let private page (format: string) (chart: GenericChart) : string =
        let figure = chart |> GenericChart.toFigureJson |> Page.inert
        let own = Page.resource "picture.js"

        $"""<!DOCTYPE html><html><head><meta charset="utf-8"></head><body><script>{Page.plotly ()}</script><script>{own}
const leave = (text) => {{ document.documentElement.innerHTML = "<head></head><body></body>"; document.body.textContent = text; }};
const packed = (text) => btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));
cmcl.picture({figure}, "{format}").then(
  (image) => leave(`picture:${{{(if format = "svg" then "packed(image)" else "image")}}}:`),
  (error) => leave(`failure:${{packed(error.message)}}:`));
</script></body></html>"""

    let private drawn path program folder format chart : Result<byte[], Fault list> =
        visit path program folder (page format chart) [ "--dump-dom" ]
        |> Result.bind (fun said ->
            match Regex.Match(said, "(picture|failure):([A-Za-z0-9+/=]*):") with
            | m when m.Success && m.Groups[1].Value = "picture" -> Ok(Convert.FromBase64String m.Groups[2].Value)
            | m when m.Success ->
                let why = Encoding.UTF8.GetString(Convert.FromBase64String m.Groups[2].Value)
                Error [ Fault.Unwritable(path, $"this chart could not be drawn: {why}") ]
            | _ ->
                Error [ Fault.Unwritable(path, $"the browser '{program}' gave no picture; another can be named in {Variable}") ])

    /// An SVG as the one page of a PDF of its size.
    let private printed path program folder (svg: byte[]) : Result<byte[], Fault list> =
        let text = Encoding.UTF8.GetString svg
        let size name = Regex.Match(text, $"<svg[^>]* {name}=\"([0-9.]+)\"").Groups[1].Value
        let width, height = size "width", size "height"
        let style = $"@page {{ size: {width}px {height}px; margin: 0 }} body {{ margin: 0 }} svg {{ display: block }}"
        let pdf = Path.Combine(folder, "chart.pdf")

        visit
            path
            program
            folder
            $"<!DOCTYPE html><meta charset=\"utf-8\"><style>{style}</style>{text}"
            [ "--no-pdf-header-footer"; $"--print-to-pdf={pdf}" ]
        |> Result.bind (fun _ ->
            if File.Exists pdf then
                Ok(File.ReadAllBytes pdf)
            else
                Error [ Fault.Unwritable(path, $"the browser '{program}' printed no PDF; another can be named in {Variable}") ])

    /// Writes a chart by the ending of the name and gives the full path. Faults: `BadValue` for another ending, `Contradiction` without a
    /// browser, `Unwritable`.
    let save (path: string) (chart: GenericChart) : Result<string, Fault list> =
        let draw =
            match (string (Path.GetExtension path)).ToLowerInvariant() with
            | ".svg" -> Ok(fun program folder -> drawn path program folder "svg" chart)
            | ".png" -> Ok(fun program folder -> drawn path program folder "png" chart)
            | ".pdf" ->
                Ok(fun program folder ->
                    drawn path program folder "svg" chart |> Result.bind (fun svg -> printed path program folder svg))
            | _ -> Error [ Fault.BadValue("the name of a picture", "an ending .svg, .png or .pdf", path) ]

        draw
        |> Result.bind (fun draw -> browser path |> Result.bind (fun program -> inFolder (draw program)))
        |> Result.bind (fun bytes ->
            Files.makeFolderOf path |> Result.bind (fun () -> Files.writeWhole path (fun file -> file.Write(ReadOnlySpan bytes))))
        |> Result.map (fun () -> Path.GetFullPath path)
