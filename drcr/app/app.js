// What app.py's page does in the browser.
window.drcr = {
  // a click in the picture triggers an event with its pixel
  listen(element, trigger) {
    element.addEventListener("click", event => {
      const picture = element.querySelector("svg[data-views]");
      if (!picture || !picture.contains(event.target)) return;
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
      trigger("click", { row: Math.floor(point.y), column: Math.floor(point.x) });
    });
  },

  // show a view at the band nearest to a wavelength, without asking the server: all pictures are files
  show(view, nm) {
    const picture = document.querySelector("svg[data-views]");
    if (!picture) return view;
    const pictures = JSON.parse(picture.dataset.views)[view];
    const distances = JSON.parse(picture.dataset.wavelengths).map(other => Math.abs(other - nm));
    const band = distances.indexOf(Math.min(...distances));
    const [source, caption] = pictures[Math.min(band, pictures.length - 1)];
    document.querySelector(".caption").innerHTML = caption;
    picture.dataset.wanted = source;
    const next = new Image(); // no flicker: the picture changes when the next one is loaded
    next.onload = () => {
      if (picture.dataset.wanted === source) picture.querySelector("image").setAttribute("href", source);
    };
    next.src = source;
    const line = document.querySelector("line[data-places]");
    if (line) for (const end of ["x1", "x2"]) line.setAttribute(end, JSON.parse(line.dataset.places)[band]);
    return view;
  },

  // what goes wrong before the server has a file, in the line where app.py says the rest; Gradio says only "Error"
  say(words) {
    const status = document.querySelector(".status");
    status.textContent = words;
    status.classList.add("bad");
  },
  watchUploads(megabytes) {
    const check = event => {
      const files = event.target.files ?? event.dataTransfer?.files ?? [];
      const large = [...files].find(file => file.size > megabytes * 1e6);
      if (!large || !event.target.closest(".zone")) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (event.target.files) event.target.value = "";
      drcr.say(`${large.name}: ${Math.ceil(large.size / 1e6)} MB, but at most ${megabytes} MB are taken (--max_upload).`);
    };
    for (const kind of ["change", "drop"]) document.addEventListener(kind, check, true);
    const plain = window.fetch;
    window.fetch = async (...request) => {
      const answer = await plain(...request);
      if (!answer.ok && `${request[0].url ?? request[0]}`.includes("/upload?"))
        drcr.say("The file could not be kept: the disk of the computer that runs app.py may be full.");
      return answer;
    };
  },

  // the slider shows bands, or the errors of bands
  slide(view, nm) {
    return drcr.show(view === "Error" ? view : "Band", nm);
  },
};
