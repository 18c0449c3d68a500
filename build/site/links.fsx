// Every relative link of the site leads to a file and an anchor that are there, and nothing is loaded from elsewhere.
open System
open System.IO
open System.Text.RegularExpressions

let check (site: string) : string list =
    let pages = Directory.GetFiles(site, "*.html", SearchOption.AllDirectories)

    let anchors =
        Map
            [ for file in pages ->
                  file,
                  set
                      [ for m in Regex.Matches(File.ReadAllText file, @"\s(?:id|name)=""([^""]*)""") ->
                            Net.WebUtility.HtmlDecode m.Groups[1].Value ] ]

    [ for file in pages do
          let here = Path.GetRelativePath(site, file)

          for m in Regex.Matches(File.ReadAllText file, @"<(\w+)[^>]*?\s(?:href|src)=""([^""]*)""") do
              let tag, link = m.Groups[1].Value, Net.WebUtility.HtmlDecode m.Groups[2].Value

              match link.Split('#', 2) |> List.ofArray with
              | _ when Regex.IsMatch(link, "^(https?|mailto):") ->
                  if tag <> "a" then
                      $"{here}: {tag} is loaded from {link}"
              | _ when link.StartsWith "data:" -> ()
              | path :: anchor ->
                  let target =
                      if path = "" then
                          file
                      else
                          Path.GetFullPath(
                              Path.Combine(Path.GetDirectoryName file |> Option.ofObj |> Option.get, Uri.UnescapeDataString path)
                          )

                  if not (File.Exists target) then
                      $"{here}: {link} is not there"
                  else
                      match anchor with
                      | [ name ] when name <> "" && not (Set.contains (Uri.UnescapeDataString name) anchors[target]) ->
                          $"{here}: {link} names no anchor"
                      | _ -> ()
              | [] -> () ]
    |> List.distinct
