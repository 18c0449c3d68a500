// Pinned packages with pictures, captions and recordings: fetched by apt-get and npm, their sums checked, unpacked without installing anything.
open System
open System.Diagnostics
open System.IO
open System.Security.Cryptography

let root = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, "..", ".."))
/// Everything fetched, unpacked and rendered: ignored by git.
let work = Path.Combine(root, "output", "real")
let private fetched = Path.Combine(work, "packages")
let unpacked = Path.Combine(work, "unpacked")

/// Runs a program in a folder; what it printed.
let ran (folder: string) (program: string) (arguments: string list) : string =
    let info = ProcessStartInfo(program, arguments)
    info.WorkingDirectory <- folder
    info.RedirectStandardOutput <- true
    info.RedirectStandardError <- true

    use p =
        try
            Process.Start info
        with :? ComponentModel.Win32Exception ->
            failwith $"'{program}' is needed and is not installed here."

    let errors = p.StandardError.ReadToEndAsync()
    let output = p.StandardOutput.ReadToEnd()
    p.WaitForExit()

    if p.ExitCode <> 0 then
        let line = String.Join(" ", arguments)
        failwith $"{program} {line} failed: {errors.Result.Trim()}"

    output

type Package =
    | Debian of name: string * version: string * sum: string
    | Npm of name: string * version: string * sum: string

    member p.Name =
        match p with
        | Debian(name, _, _)
        | Npm(name, _, _) -> name

/// The part of the stream that each is for.
let packages: (string * Package) list =
    [ for language, recordings, texts in
          [ "en",
            "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
            "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50"
            "ru",
            "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
            "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab" ] do
          "prompts", Debian($"asterisk-core-sounds-{language}-wav", "1.6.1-1", recordings)
          "prompts", Debian($"asterisk-core-sounds-{language}", "1.6.1-1", texts)
      "clipart", Debian("openclipart-svg", "1:0.18+dfsg-19", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5")
      "stamps",
      Debian("tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34")
      "emoji", Npm("@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad")
      "emoji",
      Npm("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0")
      "emoji", Npm("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a") ]

/// Where a package was unpacked.
let folderOf (name: string) : string = Path.Combine(unpacked, name.Replace('/', '+'))

let private sumOf (file: string) =
    use stream = File.OpenRead file
    Convert.ToHexStringLower(SHA256.HashData stream)

/// The archive of a package, fetched unless it is there with the right sum.
let private archive (package: Package) : string =
    let folder = Path.Combine(fetched, package.Name.Replace('/', '+'))
    Directory.CreateDirectory folder |> ignore

    let fetch, sum =
        match package with
        | Debian(name, version, sum) -> (fun () -> ran folder "apt-get" [ "download"; "-qq"; $"{name}={version}" ]), sum
        | Npm(name, version, sum) ->
            (fun () -> ran folder "npm" [ "pack"; "--silent"; "--ignore-scripts"; $"{name}@{version}" ]), sum

    let here () = Directory.GetFiles folder |> Array.tryFind (fun file -> sumOf file = sum)

    match here () with
    | Some file -> file
    | None ->
        printfn "  fetching %s" package.Name

        for file in Directory.GetFiles folder do
            File.Delete file

        fetch () |> ignore

        match here (), Directory.GetFiles folder with
        | Some file, _ -> file
        | None, [| file |] ->
            failwith $"{package.Name} has the SHA-256 {sumOf file} and not {sum}: it is not the package that was checked."
        | None, _ -> failwith $"{package.Name} was not fetched."

/// Fetches and unpacks the packages of some parts; the bytes of their archives.
let fetch (parts: string list) : int64 =
    [ for part, package in packages do
          if List.contains part parts then
              let file = archive package
              let target = folderOf package.Name

              if not (Directory.Exists target) then
                  let temporary = target + ".part"

                  if Directory.Exists temporary then
                      Directory.Delete(temporary, true)

                  Directory.CreateDirectory temporary |> ignore

                  match package with
                  | Debian _ -> ran work "dpkg-deb" [ "-x"; file; temporary ] |> ignore
                  | Npm _ -> ran work "tar" [ "xzf"; file; "-C"; temporary ] |> ignore

                  Directory.Move(temporary, target)

              FileInfo(file).Length ]
    |> List.sum
