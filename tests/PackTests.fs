/// The packages, as whoever installs them meets them. CMCL_PACKAGES names the folder they are in (dotnet fsi build.fsx -- pack-check).
module Cmcl.Tests.PackTests

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Reflection.Metadata
open System.Reflection.PortableExecutable
open System.Runtime.InteropServices
open System.Text.RegularExpressions
open System.Xml.Linq
open Cmcl
open Cmcl.Tests.Checks
open Expecto

/// The folder of the packages, or the test is skipped.
let private packages () : string =
    match Environment.GetEnvironmentVariable "CMCL_PACKAGES" with
    | null
    | "" -> skiptest "CMCL_PACKAGES names no folder with packages: dotnet fsi build.fsx -- pack-check"
    | folder -> folder

let private package (name: string) : ZipArchive =
    ZipFile.OpenRead(Path.Combine(packages (), $"{name}.{Record.cmclVersion}.nupkg"))

let private bytes (name: string) (archive: ZipArchive) : byte[] =
    match archive.GetEntry name with
    | null -> failtest $"the package has no {name}"
    | entry ->
        use stream = entry.Open()
        use memory = new MemoryStream()
        stream.CopyTo memory
        memory.ToArray()

let private text name archive = (bytes name archive |> Text.Encoding.UTF8.GetString).TrimStart '\ufeff'

/// The elements of this name in a package's description.
let private described (id: string) (name: string) (archive: ZipArchive) : XElement list =
    [ for e in XDocument.Parse(text $"{id}.nuspec" archive).Descendants() do
          if e.Name.LocalName = name then
              e ]

let private attribute (name: string) (e: XElement) = (nonNull (e.Attribute(XName.Get name))).Value

/// A test in a folder of its own, outside the tree.
let private inFolder (body: string -> unit) : unit =
    let folder = Directory.CreateTempSubdirectory "cmcl-pack"

    try
        body folder.FullName
    finally
        folder.Delete true

/// What a program said, having ended with 0. It knows of no libtorch but its own and of no cache but the folder's.
let private said (home: string) (folder: string) (program: string) (arguments: string list) : string =
    let info =
        ProcessStartInfo(
            program,
            arguments,
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    let dotnet = Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", ".."))

    for name in [ Native.FolderVariable; "LD_LIBRARY_PATH" ] do
        info.Environment.Remove name |> ignore

    info.Environment["DOTNET_ROOT"] <- dotnet
    info.Environment["NUGET_PACKAGES"] <- Path.Combine(home, "nuget")
    info.Environment["XDG_CACHE_HOME"] <- Path.Combine(home, "cache")
    use p = nonNull (Process.Start info)
    let out, error = p.StandardOutput.ReadToEndAsync(), p.StandardError.ReadToEndAsync()
    p.WaitForExit()
    let command = String.Join(' ', program :: arguments)
    Expect.equal p.ExitCode 0 $"exit code of {command}: {out.Result}{error.Result}"
    out.Result

/// A NuGet configuration of the packages' folder alone, or of that and the machine's.
let private configuration (alone: bool) : string =
    let clear = if alone then "<clear/>" else ""
    $"""<configuration><packageSources>{clear}<add key="packed" value="{packages ()}"/></packageSources></configuration>"""

/// The packages of the lock file's first group by name, and their versions.
let private locked =
    lazy
        (Map
            [ for line in File.ReadLines(Path.Combine(root, "paket.lock")) |> Seq.takeWhile (fun l -> not (l.StartsWith "GROUP")) do
                  let m = Regex.Match(line, @"^    (\S+) \(([\d.]+)\)")

                  if m.Success then
                      m.Groups[1].Value, m.Groups[2].Value ])

/// A version with its last zeros, which some write and some leave out.
let private whole (version: string) =
    let parts = version.Split '.'
    String.Join('.', Array.append parts (Array.create (max 0 (3 - parts.Length)) "0"))

let private library =
    testList
        "library"
        [ testCase "depends on what it refers to, from the locked versions upwards, and on no libtorch" (fun () ->
              use archive = package "Cmcl"

              let found = [ for d in described "Cmcl" "dependency" archive -> attribute "id" d, attribute "version" d ]

              let direct =
                  [ for name in File.ReadLines(Path.Combine(root, "src", "paket.references")) do
                        let version = whole locked.Value[name]
                        name, (if name = "TorchSharp" then $"[{version}]" else version) ]

              Expect.equal (List.sort found) (List.sort direct) "dependencies")
          testCase "says what it is" (fun () ->
              use archive = package "Cmcl"
              let one name = (described "Cmcl" name archive |> List.exactlyOne).Value
              Expect.equal (one "version") Record.cmclVersion "version"
              Expect.equal (one "license") "MIT" "licence"
              Expect.equal (one "authors") "Cmcl contributors" "authors"
              Expect.stringContains (text (one "readme") archive) "You choose the libtorch 2.10" "readme"
              Expect.stringContains (text "CHANGELOG.md" archive) $"{Record.cmclVersion}" "changes"
              Expect.stringContains (text "LICENSE" archive) "MIT License" "licence's text"
              Expect.stringContains (text "lib/net10.0/Cmcl.xml" archive) "M:Cmcl.Catalogue.locate" "documentation of functions")
          testCase "has symbols that fit and hold the sources" (fun () ->
              use archive = package "Cmcl"
              use symbols = ZipFile.OpenRead(Path.Combine(packages (), $"Cmcl.{Record.cmclVersion}.snupkg"))
              use assembly = new PEReader(new MemoryStream(bytes "lib/net10.0/Cmcl.dll" archive))

              use provider = MetadataReaderProvider.FromPortablePdbStream(new MemoryStream(bytes "lib/net10.0/Cmcl.pdb" symbols))

              let reader = provider.GetMetadataReader()

              let named =
                  assembly.ReadDebugDirectory()
                  |> Seq.find (fun e -> e.Type = DebugDirectoryEntryType.CodeView)
                  |> assembly.ReadCodeViewDebugDirectoryData

              let header = nonNull reader.DebugMetadataHeader
              Expect.equal (Guid(header.Id.AsSpan().Slice(0, 16))) named.Guid "identity"

              let document =
                  reader.Documents
                  |> Seq.find (fun d -> reader.GetString(reader.GetDocument(d).Name).EndsWith "Data/Catalogue.fs")

              let embedded = Guid "0E8A571B-6926-466E-B4AD-8AB04611F5FE"

              let source =
                  reader.GetCustomDebugInformation document
                  |> Seq.map reader.GetCustomDebugInformation
                  |> Seq.find (fun i -> reader.GetGuid i.Kind = embedded)

              // Four bytes with the length, then deflate.
              let blob = reader.GetBlobBytes source.Value
              use inflated = new DeflateStream(new MemoryStream(blob, 4, blob.Length - 4), CompressionMode.Decompress)
              use lines = new StreamReader(inflated)

              Expect.equal
                  (lines.ReadToEnd())
                  (File.ReadAllText(Path.Combine(root, "src", "Data", "Catalogue.fs")))
                  "the source of a module")
          testCase "is used by a program outside the tree, made of its readme" (fun () ->
              if not (OperatingSystem.IsLinux()) then
                  skiptest "the readme's program names the libtorch of Linux"

              inFolder (fun folder ->
                  use archive = package "Cmcl"
                  let readme = text "README.md" archive

                  let block language = Regex.Match(readme, $"```{language}\n(.*?)```", RegexOptions.Singleline).Groups[1].Value

                  let write name (content: string) = File.WriteAllText(Path.Combine(folder, name), content)
                  write "nuget.config" (configuration false)
                  write "Program.fs" (block "fsharp")

                  write
                      "Program.fsproj"
                      $"""<Project Sdk="Microsoft.NET.Sdk">
                            <PropertyGroup>
                              <OutputType>Exe</OutputType>
                              <TargetFramework>net10.0</TargetFramework>
                              <TreatWarningsAsErrors>true</TreatWarningsAsErrors>
                              <NuGetAudit>false</NuGetAudit>
                              <CreateHardLinksForCopyLocalIfPossible>true</CreateHardLinksForCopyLocalIfPossible>
                            </PropertyGroup>
                            <ItemGroup><Compile Include="Program.fs" /></ItemGroup>
                            {block "xml"}
                          </Project>"""

                  // The machine's packages, but for an earlier Cmcl of this version.
                  let cache = Directory.CreateDirectory(Path.Combine(folder, "nuget")).FullName

                  let machine =
                      match Environment.GetEnvironmentVariable "NUGET_PACKAGES" with
                      | null
                      | "" ->
                          Path.Combine(Environment.GetFolderPath Environment.SpecialFolder.UserProfile, ".nuget", "packages")
                      | path -> path

                  for directory in Directory.GetDirectories machine do
                      let name = nonNull (Path.GetFileName directory)

                      if not (name.StartsWith "cmcl") then
                          Directory.CreateSymbolicLink(Path.Combine(cache, name), directory) |> ignore

                  said folder folder "dotnet" [ "build"; "-c"; "Release"; "--nologo" ] |> ignore
                  let out = said folder folder "dotnet" [ Path.Combine("bin", "Release", "net10.0", "Program.dll") ]

                  let moved =
                      [ for m in Regex.Matches(out, @"(\S+): old scores moved by ([\d.]+) of their size") ->
                            m.Groups[1].Value, float m.Groups[2].Value ]

                  Expect.equal (List.map fst moved) [ "vanilla"; "dns" ] $"methods in {out}"
                  Expect.isLessThan (snd moved[1]) (0.5 * snd moved[0]) "dns moves old scores less than vanilla"
                  Expect.isTrue (Directory.Exists(Path.Combine(cache, "cmcl"))) "the package was taken from its folder")) ]

let private tool =
    testCase "the tool works at once, in an empty folder" (fun () ->
        inFolder (fun folder ->
            let home = Directory.CreateDirectory(Path.Combine(folder, "home")).FullName
            let elsewhere = Directory.CreateDirectory(Path.Combine(folder, "elsewhere")).FullName
            File.WriteAllText(Path.Combine(home, "nuget.config"), configuration true)
            let path = Path.Combine(folder, "tool")

            said
                home
                home
                "dotnet"
                [ "tool"
                  "install"
                  "Cmcl.Tool"
                  "--version"
                  Record.cmclVersion
                  "--tool-path"
                  path
                  "--configfile"
                  Path.Combine(home, "nuget.config") ]
            |> ignore

            let cmcl (arguments: string) = said home elsewhere (Path.Combine(path, "cmcl")) (List.ofArray (arguments.Split ' '))

            Expect.equal ((cmcl "--version").Trim()) $"cmcl {Record.cmclVersion}" "version"
            Expect.stringContains (cmcl "info emoji") "Emoji as vision" "the shipped stream is inside"
            let out = cmcl "run --stream synthetic --epochs 1 --seeds 0 --methods vanilla"
            Expect.stringContains out "vanilla" "the table"
            let results = Path.Combine(elsewhere, "results", "synthetic", "results.csv")
            Expect.isGreaterThan (File.ReadAllLines results).Length 100 "figures"
            // Workers are this program once more.
            cmcl "compare --stream synthetic --methods vanilla --seeds 0 --set epochs=1 --quiet" |> ignore
            let compared = Path.Combine(elsewhere, "results", "compare", "compare.html")
            Expect.isTrue (File.Exists compared) "a comparison by workers"))

let tests = testList "packages" [ library; tool ]
