// The main charts of each script's page as docs/images/scripts/NAME.png, for docs/ablations.md. Needs chromium and what the scripts left in
// output/scripts; pngquant, where it is there, makes them smaller. dotnet fsi build.fsx -- pictures
open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions

let root = Path.Combine(__SOURCE_DIRECTORY__, "..") |> Path.GetFullPath
let pages, pictures = Path.Combine(root, "output", "scripts"), Path.Combine(root, "docs", "images", "scripts")

/// Which charts of a page stand in its picture, from 1; of the others the first.
let charts =
    Map
        [ "place", [ 1; 4 ]
          "orders", [ 1; 2 ]
          "rates", [ 1; 2; 3 ]
          "batches", [ 1; 2 ]
          "spectrum", [ 1; 2 ]
          "certificate", [ 1; 2 ]
          "plasticity", [ 1; 2 ] ]

let chromium (arguments: string list) : string =
    let profile = Directory.CreateTempSubdirectory "cmcl-chromium"

    let quiet =
        [ "--headless"
          "--no-sandbox"
          "--disable-gpu"
          "--disable-quic"
          "--no-first-run"
          "--disable-background-networking"
          "--disable-component-update"
          "--disable-sync"
          "--hide-scrollbars"
          $"--user-data-dir={profile.FullName}" ]

    use p =
        Process.Start(
            ProcessStartInfo("chromium", quiet @ arguments, RedirectStandardOutput = true, RedirectStandardError = true)
        )

    p.ErrorDataReceived.Add ignore
    p.BeginErrorReadLine()
    let said = p.StandardOutput.ReadToEnd()
    p.WaitForExit()
    profile.Delete true
    said

/// Lets a page say how high it is, with more style.
let measured (style: string) (page: string) : string =
    let script =
        "<script>addEventListener('load', () => setTimeout(() => document.body.dataset.height = document.body.scrollHeight, 500))</script>"

    page.Replace("</head>", $"<style>{style}</style>{script}</head>")

/// Style that leaves a page its title and some charts.
let only (name: string) : string =
    let kept =
        charts |> Map.tryFind name |> Option.defaultValue [ 1 ] |> List.map (fun i -> $":nth-of-type({i})") |> String.concat ","

    $"footer.top, main > section:not({kept}) {{ display: none }} main > section {{ border: 0; padding: .6rem 0 }} header.top {{ padding-top: 20px }}"

/// A browser's window is 500 pixels wide at least, so that a narrower page stands in a frame.
let framed (width: int) (page: string) : string =
    let frame =
        $"<body style='margin:0' data-height=2400><iframe src='file://{page}' style='border:0;width:{width}px;height:2400px'></iframe></body>"

    File.WriteAllText(page + ".frame.html", frame)
    page + ".frame.html"

let picture (width: int) (style: string) (page: string) (png: string) : unit =
    let copy = page + ".picture.html"
    File.WriteAllText(copy, measured style (File.ReadAllText page))
    let address = "file://" + (if width < 500 then framed width copy else copy)
    let dom = chromium [ $"--window-size={width},800"; "--virtual-time-budget=4000"; "--dump-dom"; address ]
    let height = Regex.Match(dom, "data-height=\"(\\d+)\"").Groups[1].Value
    chromium [ $"--window-size={width},{height}"; "--virtual-time-budget=4000"; $"--screenshot={png}"; address ] |> ignore
    File.Delete copy
    File.Delete(copy + ".frame.html")

    try
        use p = Process.Start("pngquant", [ "--force"; "--ext"; ".png"; "128"; png ])
        p.WaitForExit()
    with :? ComponentModel.Win32Exception ->
        ()

    printfn "%s (%s px high, %d kB)" png height (FileInfo(png).Length / 1000L)

Directory.CreateDirectory pictures |> ignore

match List.ofArray fsi.CommandLineArgs |> List.tail with
| [ width; page; png ] -> picture (int width) "" (Path.GetFullPath page) (Path.GetFullPath png)
| _ ->
    for folder in Directory.GetDirectories pages |> Array.sort do
        let name, page = Path.GetFileName folder, Path.Combine(folder, "page.html")

        if File.Exists page && File.Exists(Path.Combine(root, "scripts", name + ".fsx")) && name <> "template" then
            picture 940 (only name) page (Path.Combine(pictures, name + ".png"))
